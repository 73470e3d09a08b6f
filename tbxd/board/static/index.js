// The tab "tbxd": the state of the daemon at the left, curves as they come at the right.
// Everything that was logged is put into the page as text, never as markup.

import {draw, since, smoothed, text} from "./chart.js";

const LIVE_MS = 1500, POINTS_MS = 2000, TAGS_MS = 5000; // between two looks
const REST = 4; // times as long as a look took, between two of them at the least
const CARDS_STEP = 48; // cards that are made at a time
const RUNS_SHOWN = 300; // in the list at the left
const OWN = /^tbxd\//; // tags that tbxd logs of itself
const LIGHT = ["#d1540f", "#0072b2", "#00805d", "#a6447f", "#8a6d00", "#5b4bc4", "#b3261e", "#3f6b21"];
const DARK = ["#ff9a57", "#5fb4f0", "#2fd0a2", "#ec93c6", "#e6c84b", "#aca2ff", "#ff8f86", "#a5d17a"];

const look = {tags: {}, runs: [], live: null, off: new Set(), filter: "", runFilter: "", own: false, log: false,
  axis: "steps", smooth: 0, paused: false, shown: CARDS_STEP};
const cards = new Map(); // tag to its card
const $ = id => document.getElementById(id);

const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
};

const ask = async (path, body) => {
  const options = body ? {method: "POST", body: JSON.stringify(body), headers: {"Content-Type": "application/json"}} : {};
  const answer = await fetch(`./${path}`, options);
  if (!answer.ok) throw new Error(`TensorBoard answers ${answer.status} to ${path}`);
  return answer.json();
};

// --- light and dark -------------------------------------------------------------------------------------------------

const dark = () => document.documentElement.classList.contains("dark");

const followTheme = () => {
  const wanted = matchMedia("(prefers-color-scheme: dark)");
  let outer = null;
  try { outer = parent !== window ? parent.document.body : null; } catch { /* TensorBoard is in a frame of elsewhere */ }
  const set = () => {
    document.documentElement.classList.toggle("dark", outer ? outer.classList.contains("dark-mode") : wanted.matches);
    listRuns();
    redraw();
  };
  if (outer) new MutationObserver(set).observe(outer, {attributes: true, attributeFilter: ["class"]});
  else wanted.addEventListener("change", set);
  set();
};

const ownColor = run => {
  const place = Math.max(0, look.runs.indexOf(run));
  return (dark() ? DARK : LIGHT)[place % LIGHT.length];
};
const colorOf = (tag, run) => look.tags[tag]?.[run] || ownColor(run);

// --- the daemon -----------------------------------------------------------------------------------------------------

const count = number => Math.round(number).toLocaleString("en");
const bytes = number => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  for (; number >= 1000 && place < units.length - 1; place++) number /= 1024;
  return `${Number(number.toPrecision(3))} ${units[place]}`;
};
const lagOf = seconds => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : since(seconds));
const ranksOf = ranks => {
  const behind = ranks.behind.length ? `, behind: ${ranks.behind.join(", ")}` : "";
  const left = ranks.joined - ranks.alive;
  const lost = [[ranks.missing, "missing"], [ranks.late, "late"]].filter(([number]) => number);
  return `${ranks.alive} of ${ranks.world} ranks log${left ? `, ${left} ended` : ""}${behind}` +
    lost.map(([number, what]) => `, ${count(number)} values ${what}`).join("");
};

const showLive = live => {
  look.live = live;
  const state = $("state");
  state.className = live.trouble ? "down" : "up";
  state.textContent = live.trouble ? "no daemon is running" : `${live.kind} is running`;
  $("about").textContent = live.trouble || `version ${live.version}, pid ${live.pid}, since ${since(live.up_seconds)}`;
  const dropped = Object.values(live.dropped || {}).reduce((sum, number) => sum + number, 0);
  const pairs = live.trouble && !live.pid ? [] : [
    ["records/s", count(live.records_per_second)], ["written/s", bytes(live.bytes_per_second)],
    ["lag", lagOf(live.lag_seconds), live.lag_seconds > 5], ["cpu", `${count(live.cpu_percent)} %`],
    ["sessions", count(live.sessions)], ["memory", bytes(live.memory_bytes)],
    ["pending", count(live.pending)], ["dropped", count(dropped), dropped],
  ];
  $("numbers").replaceChildren(...pairs.map(([name, value, bad]) =>
    make("div", {}, make("dt", {}, name), make("dd", {class: bad ? "bad" : null}, value))));
  const notes = [
    ...Object.entries(live.dropped || {}).map(([reason, number]) =>
      `${count(number)} dropped, ${reason}${live.hints[reason] ? `: ${live.hints[reason]}` : ""}`),
    ...live.runs.filter(run => run.error).map(run => `${run.run} cannot be written: ${run.error}`),
    ...(live.disks || []).filter(disk => disk.free_bytes < disk.total_bytes * 0.05)
      .map(disk => `${bytes(disk.free_bytes)} are free on the disk of the ${disk.what}`),
    ...(live.notes || []),
  ];
  $("notes").replaceChildren(...notes.map(note => make("p", {class: "note bad"}, note)));
  $("elsewhere").textContent =
    live.elsewhere ? `runs of this daemon outside of this log folder: ${count(live.elsewhere)}` : "";
  listRuns();
};

const listRuns = () => {
  if (!$("runs")) return;
  const live = new Map((look.live?.runs || []).map(run => [run.run, run]));
  const side = run => /(^|\/)ranks$/.test(run) && look.runs.includes(run.replace(/\/?ranks$/, "") || ".");
  const all = [...new Set([...look.runs, ...live.keys()])].filter(run => !side(run)).sort();
  const fits = matcher(look.runFilter), found = all.filter(fits), shown = found.slice(0, RUNS_SHOWN);
  for (const [run, item] of items) if (!shown.includes(run)) { item.element.remove(); items.delete(run); }
  shown.forEach((run, place) => {
    if (!items.has(run)) items.set(run, itemOf(run));
    const item = items.get(run), state = live.get(run);
    if ($("runs").children[place] !== item.element) $("runs").insertBefore(item.element, $("runs").children[place] || null);
    item.swatch.style.background = ownColor(run);
    item.rate.textContent = state && state.rate >= 0.5 ? `${count(state.rate)}/s` : "";
    item.ranks.textContent = state?.ranks ? ranksOf(state.ranks) : "";
    item.values.textContent = (state?.values || []).map(([tag, step, value]) => `${tag} ${text(value)} at ${step}`).join(", ");
  });
  $("runs-left").textContent = found.length > shown.length ? `${count(found.length - shown.length)} more: filter them` : "";
};

const items = new Map(); // run to what is in the list of it, which stays: it may have the focus, or be clicked on
const itemOf = run => {
  const box = make("input", {type: "checkbox", "data-run": run, onchange: () => {
    look.off[box.checked ? "delete" : "add"](run);
    refresh();
  }});
  box.checked = !look.off.has(run);
  const [swatch, rate] = [make("span", {class: "swatch"}), make("span", {class: "dim"})];
  const [ranks, values] = [make("div", {class: "more"}), make("div", {class: "more"})];
  const label = make("label", {}, box, swatch, make("span", {class: "name"}, run), rate);
  return {element: make("li", {}, label, ranks, values), swatch, rate, ranks, values};
};

// --- the curves -----------------------------------------------------------------------------------------------------

const matcher = pattern => {
  if (!pattern) return () => true;
  try { const found = new RegExp(pattern, "i"); return name => found.test(name); }
  catch { return name => name.toLowerCase().includes(pattern.toLowerCase()); }
};

const runsOf = tag => Object.keys(look.tags[tag] || {}).filter(run => !look.off.has(run) && matcher(look.runFilter)(run));

const cardOf = tag => {
  const canvas = make("canvas", {"aria-hidden": "true"}), body = make("tbody"), note = make("div", {class: "dim"});
  const element = make("article", {class: "card", tabindex: "0", "data-tag": tag, "aria-label": tag},
    make("h3", {}, tag), canvas, note, make("table", {},
      make("thead", {}, make("tr", {}, ...["run", "step", "value", "time"].map(name => make("th", {scope: "col"}, name)))), body));
  const card = {tag, element, canvas, body, note, data: null, answer: "", near: false, cursor: null, scale: null};
  const move = pixel => { if (card.scale) { card.cursor = nearest(card, card.scale.at(pixel)); paint(card); } };
  canvas.addEventListener("pointermove", event => move(event.offsetX));
  canvas.addEventListener("pointerleave", () => { card.cursor = null; paint(card); });
  element.addEventListener("keydown", event => onCardKey(event, card));
  element.addEventListener("blur", () => { card.cursor = null; paint(card); });
  watch.observe(element);
  new ResizeObserver(() => paint(card)).observe(canvas);
  return card;
};

const watch = new IntersectionObserver(entries => entries.forEach(entry => {
  const card = cards.get(entry.target.dataset.tag);
  if (card) { card.near = entry.isIntersecting; if (card.near) load(card); }
}), {rootMargin: "300px"});

const load = async card => {
  const runs = runsOf(card.tag), key = runs.join("\n");
  if (card.loading) { card.again = true; return; }
  card.loading = true;
  try {
    const data = runs.length ? await ask("points", {tag: card.tag, runs}) : {curves: {}, left_out: 0};
    const answer = JSON.stringify(data);
    if (answer !== card.answer) { card.answer = answer; card.data = data; paint(card); }
    said("");
  } catch (error) { said(String(error.message)); }
  card.loading = false;
  if (card.again || key !== runsOf(card.tag).join("\n")) { card.again = false; load(card); }
};

const xOf = (curve, start) => {
  if (look.axis === "steps") return curve.steps;
  return look.axis === "time" ? curve.times : curve.times.map(time => time - start);
};

const curvesOf = card => Object.entries(card.data?.curves || {}).map(([run, curve]) => {
  const start = curve.times[0], edge = side => side && [xOf(side, start), side.values];
  return {run, color: colorOf(card.tag, run), source: curve, x: xOf(curve, start), raw: curve.values,
    y: smoothed(curve.values, look.smooth), low: edge(curve.low), high: edge(curve.high)};
});

const xs = curve => curve.x;
const nearest = (card, x) => {
  let best = null;
  for (const one of curvesOf(card).flatMap(xs)) if (best === null || Math.abs(one - x) < Math.abs(best - x)) best = one;
  return best;
};

const indexAt = (values, x) => {
  if (x === null) return values.length - 1;
  let low = 0, high = values.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < x) low = middle + 1; else high = middle;
  }
  return low > 0 && x - values[low - 1] < values[low] - x ? low - 1 : low;
};

const paint = card => {
  if (!card.near || !card.data) return;
  const curves = curvesOf(card), style = getComputedStyle(document.documentElement);
  const colors = {text: style.getPropertyValue("--dim"), line: style.getPropertyValue("--line")};
  card.scale = draw(card.canvas, curves, {log: look.log, axis: look.axis, cursor: card.cursor, colors});
  card.note.textContent = card.data.left_out ? `${count(card.data.left_out)} more runs are not drawn: filter them` : "";
  const spoken = [];
  card.body.replaceChildren(...curves.map(curve => {
    const place = indexAt(curve.x, card.cursor), swatch = make("span", {class: "swatch"});
    swatch.style.background = curve.color;
    const {low, high, steps, times, values} = curve.source;
    const within = [low, high].map(side => side && text(side.values[indexAt(side.steps, steps[place])]));
    const value = text(look.smooth ? curve.y[place] : values[place]);
    spoken.push(`${curve.run} ${value} at step ${steps[place]}`);
    return make("tr", {title: within[0] ? `from ${within[0]} to ${within[1]} over the ranks` : null},
      make("td", {title: curve.run}, swatch, curve.run), make("td", {}, count(steps[place])), make("td", {}, value),
      make("td", {}, new Date(times[place] * 1000).toLocaleTimeString()));
  }));
  card.element.setAttribute("aria-label", `${card.tag}: ${spoken.slice(0, 4).join("; ")}`);
  if (card.cursor !== null && document.activeElement === card.element) $("spoken").textContent = spoken.slice(0, 4).join("; ");
};

const onCardKey = (event, card) => {
  if (event.target !== card.element) return;
  const all = [...new Set(curvesOf(card).flatMap(xs))].sort((a, b) => a - b);
  const here = card.cursor === null ? all.length - 1 : indexAt(all, card.cursor);
  const steps = {ArrowLeft: here - (card.cursor !== null), ArrowRight: here + 1, PageUp: here - 20, PageDown: here + 20,
    Home: 0, End: all.length - 1};
  if (event.key in steps && all.length) card.cursor = all[Math.min(all.length - 1, Math.max(0, steps[event.key]))];
  else if (event.key === "Enter") card.element.classList.toggle("wide");
  else if (event.key === "Escape") card.cursor = null;
  else return;
  event.preventDefault();
  paint(card);
};

// Cards are made for the tags that are asked for, in their order; those that are there stay as they are.
const layout = () => {
  const fits = matcher(look.filter);
  const tags = Object.keys(look.tags).filter(tag => (look.own || !OWN.test(tag)) && fits(tag) && runsOf(tag).length);
  const wanted = tags.slice(0, look.shown);
  const kept = new Set(wanted);
  for (const [tag, card] of cards) if (!kept.has(tag)) { watch.unobserve(card.element); card.element.remove(); cards.delete(tag); }
  wanted.forEach((tag, place) => {
    if (!cards.has(tag)) cards.set(tag, cardOf(tag));
    const {element} = cards.get(tag);
    if ($("cards").children[place] !== element) $("cards").insertBefore(element, $("cards").children[place] || null);
  });
  $("more").hidden = tags.length <= wanted.length;
  $("more").textContent = `show more (${count(tags.length - wanted.length)})`;
  $("nothing").textContent = tags.length ? "" : Object.keys(look.tags).length ? "no tag of the runs that are ticked fits the filter"
    : "no scalar has been logged to this log folder yet";
};

const redraw = () => cards.forEach(paint);
const refresh = () => { layout(); cards.forEach(card => card.near && load(card)); };
const said = message => { $("said").textContent = message; };

// One look after the other, and none while nobody sees the page. Where TensorBoard has much to tell it is asked less often.
const repeat = (task, pause) => {
  const turn = async () => {
    const begin = performance.now();
    if (!look.paused && !document.hidden) {
      try { await task(); said(""); } catch (error) { said(`${error.message}: is TensorBoard still running?`); }
    }
    setTimeout(turn, Math.max(pause, REST * (performance.now() - begin)));
  };
  return turn();
};

const lookForTags = async () => {
  const found = await ask("tags");
  const changed = JSON.stringify(found.tags) !== JSON.stringify(look.tags);
  [look.tags, look.runs] = [found.tags, found.runs];
  if (changed) { listRuns(); refresh(); }
};

const pause = on => {
  look.paused = on;
  $("pause").setAttribute("aria-pressed", String(on));
  $("pause").textContent = on ? "go on" : "pause";
};

const page = () => {
  const onType = (key, after) => event => { look[key] = event.target.value; after(); };
  const tick = (key, after) => event => { look[key] = event.target.checked; after(); };
  const option = (value, name) => make("option", {value}, name);
  document.documentElement.lang = "en";
  document.head.append(make("link", {rel: "stylesheet", href: "./board.css"}), make("title", {}, "tbxd"));
  document.body.append(make("main", {},
    make("aside", {"aria-label": "the daemon and the runs"},
      make("div", {id: "state", role: "status"}, "looking for the daemon"), make("div", {id: "about", class: "dim note"}),
      make("dl", {id: "numbers"}), make("div", {id: "notes"}),
      make("h2", {}, "Runs"),
      make("input", {type: "search", id: "run-filter", placeholder: "filter runs (regular expression)",
        "aria-label": "filter runs", oninput: onType("runFilter", () => { listRuns(); refresh(); })}),
      make("ul", {id: "runs"}), make("div", {id: "runs-left", class: "dim"}), make("div", {id: "elsewhere", class: "dim note"}),
      make("h2", {}, "Keys"),
      make("div", {id: "keys"}, make("kbd", {}, "/"), " filters tags, ", make("kbd", {}, "p"), " pauses, ", make("kbd", {}, "Tab"),
        " goes from chart to chart; there ", make("kbd", {}, "←"), " ", make("kbd", {}, "→"), " ", make("kbd", {}, "Home"), " ",
        make("kbd", {}, "End"), " move the cursor, ", make("kbd", {}, "Enter"), " widens, ", make("kbd", {}, "Esc"), " ends")),
    make("section", {},
      make("div", {id: "bar"},
        make("input", {type: "search", id: "filter", placeholder: "filter tags (regular expression)", "aria-label": "filter tags",
          oninput: onType("filter", refresh)}),
        make("label", {}, "x axis ", make("select", {id: "axis", onchange: onType("axis", () => {
          cards.forEach(card => { card.cursor = null; });
          redraw();
        })},
          option("steps", "step"), option("relative", "relative time"), option("time", "time of day"))),
        make("label", {}, "smoothing ", make("input", {type: "range", id: "smooth", min: "0", max: "0.99", step: "0.01", value: "0",
          oninput: event => { look.smooth = Number(event.target.value); redraw(); }})),
        make("label", {}, make("input", {type: "checkbox", id: "log", onchange: tick("log", redraw)}), " log scale"),
        make("label", {}, make("input", {type: "checkbox", id: "own", onchange: tick("own", refresh)}), " tbxd/… tags"),
        make("button", {id: "pause", "aria-pressed": "false", onclick: () => pause(!look.paused)}, "pause"),
        make("span", {id: "said", class: "bad", role: "alert"})),
      make("div", {id: "cards"}), make("p", {id: "nothing", class: "dim"}),
      make("button", {id: "more", hidden: true, onclick: () => { look.shown += CARDS_STEP; layout(); }}, "show more"),
      make("div", {id: "spoken", "aria-live": "polite", style: "position:absolute;clip-path:inset(50%);width:1px;height:1px"}))));
  document.addEventListener("keydown", event => {
    const typing = event.target.matches("input[type=search], select");
    if (typing && event.key === "Escape") event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); $("filter").focus(); }
    if (event.key === "p") pause(!look.paused);
  });
};

// Called by TensorBoard.
export const render = () => {
  page();
  followTheme();
  repeat(lookForTags, TAGS_MS);
  repeat(async () => showLive(await ask("live")), LIVE_MS);
  repeat(async () => { await Promise.all([...cards.values()].filter(card => card.near).map(load)); }, POINTS_MS);
};
