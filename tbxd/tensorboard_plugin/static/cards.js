// The charts, one for each tag, with a table of the values at the cursor.

import {draw, smoothed} from "./chart.js";
import {paintSwatch, styleOf, swatch} from "./colors.js";
import {shorten, visible} from "./names.js";
import {count, exact, moment, text} from "./numbers.js";
import {$, ask, look, make, matcher, write} from "./state.js";

const CARDS_STEP = 48; // cards that are made at a time
const ROWS_SHOWN = 24; // runs in the table of a chart, unless it is wide
const TAG_LETTERS = 80, NAME_LETTERS = 9; // of a tag above its chart; of a run in a table at the least
const LETTER_PIXELS = 7, DIGIT_PIXELS = 7.4, BESIDE_PIXELS = 80; // about, of a table: letters, digits, and what is beside them
const POINTED_PIXELS = 40; // from the pointer to a curve that it points at, at the most
const FADE_FROM = 4; // curves, of which the others fade when one is pointed at
const PAGE_POINTS = 20; // that Page Up and Page Down go
const OWN = /^tbxd\//; // tags that tbxd logs of itself

const cards = new Map(); // tag to its card
let shown = CARDS_STEP;
let fitting = []; // for each of look.sets the runs that are ticked and fit the filter

const chosen = () => {
  const fits = matcher(look.runFilter), kept = new Set(look.runs.filter(run => !look.off.has(run) && fits(run)));
  fitting = look.sets.map(set => set.filter(run => kept.has(run)));
};
const runsOf = tag => fitting[look.tags.get(tag)?.set] || [];

const said = message => write($("said"), message);

const cardOf = tag => {
  const canvas = make("canvas", {"aria-hidden": "true"}), body = make("tbody"), note = make("div", {class: "dim note"});
  const empty = make("p", {class: "empty dim"}), told = make("div", {class: "told", "aria-hidden": "true"});
  const widen = make("button", {class: "widen", tabindex: "-1", title: "wide or narrow (Enter)", "aria-label": "wide or narrow"}, "↔");
  const head = make("tr", {}, ...["run", "step", "value", "time"].map(name => make("th", {scope: "col", class: name}, name)));
  const element = make("article", {class: "card", tabindex: "0", "data-tag": tag, "aria-label": visible(tag)},
    make("header", {}, make("h3", {title: visible(tag)}, make("bdi", {}, shorten([tag], TAG_LETTERS)[0])), widen),
    make("div", {class: "plot"}, canvas, empty, told), note,
    make("div", {class: "rows"}, make("table", {}, make("thead", {}, head), body)));
  const card = {tag, element, canvas, body, note, empty, told, rows: new Map(), key: "", digest: "", data: null, near: false,
    failed: "", cursor: null, scale: null, pointed: null, curves: null, made: ""};
  const leave = () => { card.cursor = card.pointed = null; later(card); };
  canvas.addEventListener("pointermove", event => point(card, event));
  canvas.addEventListener("pointerdown", event => point(card, event));
  canvas.addEventListener("pointerleave", leave);
  widen.addEventListener("click", () => { element.classList.toggle("wide"); paint(card); });
  element.addEventListener("keydown", event => onCardKey(event, card));
  element.addEventListener("blur", leave);
  watch.observe(element);
  card.sized = new ResizeObserver(() => paint(card));
  card.sized.observe(canvas);
  return card;
};

const removed = card => {
  watch.unobserve(card.element);
  card.sized.disconnect();
  card.element.remove();
  cards.delete(card.tag);
};

// What is far from the window keeps no points: of a thousand charts these would be gigabytes.
const forget = card => {
  card.data = card.curves = card.scale = null;
  card.digest = "";
  card.canvas.width = card.canvas.height = 1;
};

const watch = new IntersectionObserver(entries => entries.forEach(entry => {
  const card = cards.get(entry.target.dataset.tag);
  if (!card || card.near === entry.isIntersecting) return;
  card.near = entry.isIntersecting;
  if (card.near) load(card); else forget(card);
}), {rootMargin: "300px"});

const load = async card => {
  const runs = runsOf(card.tag), key = runs.join("\n");
  if (card.loading) { card.again = true; return; }
  card.loading = true;
  if (!card.data) write(card.empty, "loading");
  try {
    const known = card.data && key === card.key ? card.digest : "";
    const answer = runs.length ? await ask("points", {tag: card.tag, runs, known}) : {digest: "", data: {curves: {}, left_out: 0}};
    if (card.near && !answer.same) {
      [card.key, card.digest, card.data, card.curves] = [key, answer.digest, answer.data, null];
      paint(card);
    }
    card.failed = "";
    said("");
  } catch (error) {
    if (!card.data) write(card.empty, `no answer: ${error.message}`);
    said(String(error.message));
  }
  card.loading = false;
  if (card.again || (card.near && key !== runsOf(card.tag).join("\n"))) { card.again = false; load(card); }
};

const xOf = (curve, start) => {
  if (look.axis === "steps") return curve.steps;
  return look.axis === "time" ? curve.times : curve.times.map(time => (time === null ? null : time - start));
};

const finite = values => (values.some(value => typeof value === "string") ? values.map(value => (typeof value === "string" ? null : value)) : values);

const isSorted = xs => xs.every((x, place) => x !== null && !(place && xs[place - 1] > x));

// The curves of a card as they are drawn, by the names of their runs.
const curvesOf = card => {
  const wanted = `${look.axis} ${look.smooth}`;
  if (card.curves && card.made === wanted) return card.curves;
  const data = new Map(Object.entries(card.data?.curves || {}));
  card.made = wanted;
  card.curves = runsOf(card.tag).filter(run => data.has(run)).map(run => {
    const source = data.get(run), start = source.times.find(time => time !== null), x = xOf(source, start), raw = finite(source.values);
    const edge = side => side && [xOf(side, start), finite(side.values)];
    // Where not all points came, a weight is for as many as are between two of those.
    const weight = look.smooth ** (source.points / Math.max(1, raw.length));
    return {run, source, x, raw, y: smoothed(raw, weight), low: edge(source.low), high: edge(source.high), sorted: isSorted(x)};
  });
  return card.curves;
};

// The place of the value that is nearest; the latest of these where steps go back.
const indexAt = (values, x, sorted = true) => {
  if (x === null) return values.length - 1;
  if (!sorted) {
    let best = values.length - 1, least = Infinity;
    values.forEach((one, place) => {
      if (one !== null && Math.abs(one - x) <= least) [best, least] = [place, Math.abs(one - x)];
    });
    return best;
  }
  let low = 0, high = values.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < x) low = middle + 1; else high = middle;
  }
  return low > 0 && x - values[low - 1] < values[low] - x ? low - 1 : low;
};

const point = (card, event) => {
  if (!card.scale) return;
  const wanted = card.scale.at(event.offsetX), curves = curvesOf(card);
  let best = null;
  for (const curve of curves) {
    const x = curve.x[indexAt(curve.x, wanted, curve.sorted)];
    if (x !== null && (best === null || Math.abs(x - wanted) < Math.abs(best - wanted))) best = x;
  }
  [card.cursor, card.pointed] = [best, null];
  let least = POINTED_PIXELS;
  for (const curve of curves) {
    const y = curve.y[indexAt(curve.x, best, curve.sorted)], far = y === null ? Infinity : Math.abs(card.scale.up(y) - event.offsetY);
    if (far < least) [least, card.pointed] = [far, curve.run];
  }
  later(card);
};

// What a pointer does is painted once for each picture on the screen.
const later = card => {
  if (card.due) return;
  card.due = requestAnimationFrame(() => { card.due = 0; paint(card); });
};

const listed = counts => Object.entries(counts).map(([what, number]) => `${count(number)} ${what}`).join(", ");

// Why nothing is drawn.
const whyEmpty = curves => {
  if (!curves.length) return "TensorBoard has read no point of it";
  if (curves.every(curve => curve.raw.every(value => value === null))) {
    const counts = {};
    for (const {source} of curves) for (const [what, number] of Object.entries(source.odd || {})) counts[what] = (counts[what] || 0) + number;
    return `no finite value: ${listed(counts)}`;
  }
  if (look.log) return "no value is above 0, and a log scale has no others";
  return "no point has a time";
};

// What of the curves is not drawn.
const notes = (card, curves) => {
  const found = [];
  if (card.data.left_out) found.push(`runs that are not drawn (filter them): ${count(card.data.left_out)}`);
  const odd = curves.filter(curve => curve.source.odd), none = odd.filter(curve => curve.raw.every(value => value === null));
  for (const curve of none.slice(0, 3)) found.push(`${visible(curve.run)} has no finite value (${listed(curve.source.odd)})`);
  if (none.length > 3) found.push(`other runs without one: ${count(none.length - 3)}`);
  const gaps = odd.filter(curve => !none.includes(curve)).reduce((sum, {source}) => sum + Object.values(source.odd).reduce((a, b) => a + b), 0);
  if (gaps) found.push(`values that are not finite, and gaps here: ${count(gaps)}`);
  const below = look.log ? curves.reduce((sum, {source}) => sum + source.not_above_0, 0) : 0;
  if (below) found.push(`values that are not above 0, and not on a log scale: ${count(below)}`);
  return found.join("; ");
};

const stepOf = (curve, place) => curve.source.exact?.[place] ?? count(curve.source.steps[place]);

const paint = card => {
  if (!card.near || !card.data) return;
  const curves = curvesOf(card), style = getComputedStyle(document.documentElement), pointed = look.pointed ?? card.pointed;
  const colors = {text: style.getPropertyValue("--dim"), line: style.getPropertyValue("--line")};
  const known = curves.some(curve => curve.run === pointed), fades = known && curves.length >= FADE_FROM;
  for (const curve of curves) {
    Object.assign(curve, styleOf(card.tag, curve.run));
    curve.bold = curve.run === pointed;
    curve.faded = fades && !curve.bold;
  }
  card.scale = draw(card.canvas, curves, {log: look.log, axis: look.axis, cursor: card.cursor, colors});
  const drawn = card.scale || !card.canvas.clientWidth;
  write(card.empty, drawn ? "" : whyEmpty(curves));
  write(card.note, drawn ? notes(card, curves) : card.data.left_out ? notes(card, []) : "");
  fill(card, curves);
};

// The table: the values at the cursor, or the last.
const fill = (card, curves) => {
  const wide = card.element.classList.contains("wide"), rows = wide ? curves : curves.slice(0, ROWS_SHOWN);
  const range = card.scale ? card.scale.range.high - card.scale.range.low : Infinity;
  const told = curve => {
    const place = indexAt(curve.x, card.cursor, curve.sorted), {values, times} = curve.source;
    const value = look.smooth && curve.y[place] !== null ? curve.y[place] : values[place];
    return {curve, place, value, step: stepOf(curve, place), text: text(value, range), time: moment(times[place])};
  };
  const all = rows.map(told);
  const longest = name => Math.max(0, ...all.map(one => one[name].length)) * DIGIT_PIXELS;
  const beside = longest("text") + (wide || look.axis === "steps" ? longest("step") : 0) + (wide || look.axis !== "steps" ? longest("time") : 0);
  const room = Math.max(NAME_LETTERS, Math.floor((card.element.clientWidth - BESIDE_PIXELS - beside) / LETTER_PIXELS));
  const names = namesOf(card, rows.map(curve => curve.run), room);
  card.element.dataset.axis = look.axis;
  const kept = new Set(rows.map(curve => curve.run));
  for (const [run, row] of card.rows) if (!kept.has(run)) { row.element.remove(); card.rows.delete(run); }
  all.forEach(({curve, place, value, step, text: short, time}, number) => {
    if (!card.rows.has(curve.run)) card.rows.set(curve.run, rowOf(card, curve.run));
    const row = card.rows.get(curve.run);
    if (card.body.children[number] !== row.element) card.body.insertBefore(row.element, card.body.children[number] || null);
    paintSwatch(row.swatch, curve);
    write(row.name, names[number]);
    write(row.full, names[number] === visible(curve.run) ? "" : visible(curve.run));
    row.name.ariaHidden = row.full.textContent ? "true" : null;
    write(row.step, step);
    write(row.value, short);
    write(row.time, time);
    const {low, high} = curve.source;
    const within = [low, high].map(side => side && exact(side.values[indexAt(side.steps, curve.source.steps[place], false)]));
    row.value.title = exact(value) + (within[0] ? `, from ${within[0]} to ${within[1]} over the ranks` : "");
    row.element.classList.toggle("bold", curve.bold);
  });
  if (rows.length < curves.length)
    write(card.note, [`runs that are drawn and not listed (Enter or ↔ lists them): ${count(curves.length - rows.length)}`, card.note.textContent].filter(part => part).join("; "));
  speak(card, curves, told);
};

const namesOf = (card, runs, room) => {
  const key = `${room} ${runs.join("\n")}`;
  if (card.named?.key !== key) card.named = {key, names: shorten(runs, room)};
  return card.named.names;
};

const speak = (card, curves, told) => {
  const pointed = curves.find(curve => curve.run === card.pointed && card.cursor !== null);
  if (pointed) {
    const one = told(pointed);
    write(card.told, `${visible(pointed.run)}: ${one.text} at step ${one.step}`);
  } else write(card.told, "");
  const words = curves.slice(0, 4).map(curve => { const one = told(curve); return `${visible(curve.run)} ${one.text} at step ${one.step}`; });
  const label = `${visible(card.tag)}: ${card.empty.textContent || words.join("; ")}`;
  if (card.element.getAttribute("aria-label") !== label) card.element.setAttribute("aria-label", label);
  if (card.cursor !== null && document.activeElement === card.element) write($("spoken"), words.join("; "));
};

const rowOf = (card, run) => {
  const [mark, name, full] = [swatch(), make("bdi"), make("span", {class: "spoken"})];
  const [step, value, time] = ["step", "value", "time"].map(kind => make("td", {class: kind}));
  const element = make("tr", {onpointerenter: () => pointAt(run), onpointerleave: () => pointAt(null)},
    make("td", {class: "run", title: visible(run)}, make("div", {class: "named"}, mark, name, full)), step, value, time);
  return {element, swatch: mark, name, full, step, value, time};
};

// One run stands out in all charts.
export const pointAt = run => {
  if (look.pointed === run) return;
  look.pointed = run;
  for (const card of cards.values()) if (card.near) later(card);
};

const onCardKey = (event, card) => {
  if (event.target !== card.element) return;
  const all = [...new Set(curvesOf(card).flatMap(curve => curve.x))].filter(x => x !== null).sort((a, b) => a - b);
  const here = card.cursor === null ? all.length - 1 : indexAt(all, card.cursor);
  const steps = {ArrowLeft: here - (card.cursor !== null), ArrowRight: here + 1, PageUp: here - PAGE_POINTS, PageDown: here + PAGE_POINTS,
    Home: 0, End: all.length - 1};
  if (event.key in steps && all.length) card.cursor = all[Math.min(all.length - 1, Math.max(0, steps[event.key]))];
  else if (event.key === "Enter") card.element.classList.toggle("wide");
  else if (event.key === "Escape") card.cursor = null;
  else return;
  event.preventDefault();
  paint(card);
};

// Cards are made for the tags that are asked for, in their order; those that are there stay as they are.
export const layout = () => {
  chosen();
  const fits = matcher(look.filter);
  const tags = [...look.tags.keys()].filter(tag => (look.own || !OWN.test(tag)) && fits(tag) && runsOf(tag).length);
  const wanted = tags.slice(0, shown);
  const kept = new Set(wanted);
  for (const card of [...cards.values()]) if (!kept.has(card.tag)) removed(card);
  wanted.forEach((tag, place) => {
    if (!cards.has(tag)) cards.set(tag, cardOf(tag));
    const {element} = cards.get(tag);
    if ($("cards").children[place] !== element) $("cards").insertBefore(element, $("cards").children[place] || null);
  });
  $("more").hidden = tags.length <= wanted.length;
  write($("more"), `show more (${count(tags.length - wanted.length)})`);
  write($("nothing"), tags.length ? "" : look.tags.size ? "no tag of the runs that are ticked fits the filter"
    : "no scalar has been logged to this log folder yet");
};

export const redraw = () => cards.forEach(card => { card.curves = null; paint(card); });
export const endCursors = () => cards.forEach(card => { card.cursor = card.pointed = null; });
export const refresh = () => {
  layout();
  cards.forEach(card => { card.curves = null; if (card.near) load(card); });
};
export const showMore = () => { shown += CARDS_STEP; layout(); };
export const loadAll = () => Promise.all([...cards.values()].filter(card => card.near).map(load));
