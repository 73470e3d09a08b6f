// What is at the left: the state of the daemon, and the runs.

import {pointAt, refresh} from "./cards.js";
import {paintSwatch, styleOfRun, swatch} from "./colors.js";
import {shorten, visible} from "./names.js";
import {bytes, count, lag, moment, since, text} from "./numbers.js";
import {$, byName, look, make, matcher, write} from "./state.js";

const RUNS_SHOWN = 300; // in the list
const NAME_LETTERS = 56, TAG_LETTERS = 40; // of a run in the list, and of a tag below it
const BEHIND_SHOWN = 8; // ranks that are named
const LAG_HIGH_SECONDS = 5, DISK_LOW_SHARE = 0.05; // what is marked
const UNKNOWN = "–"; // what nobody knows without a daemon
const ABSENT = "no daemon is running"; // as tbxd/transport/control_client.py begins to say it; it may also hang, or refuse

const behind = ranks => ranks.slice(0, BEHIND_SHOWN).join(", ") + (ranks.length > BEHIND_SHOWN ? ` and ${ranks.length - BEHIND_SHOWN} more` : "");
const ranksOf = ranks => {
  const late = ranks.behind.length ? `, behind: ${behind(ranks.behind)}` : "";
  const left = ranks.joined - ranks.alive;
  const lost = [[ranks.missing, "missing"], [ranks.late, "late"]].filter(([number]) => number);
  return `${ranks.alive} of ${ranks.world} ranks log${left ? `, ${left} ended` : ""}${late}` +
    lost.map(([number, what]) => `, ${count(number)} values ${what}`).join("");
};

// Since when nothing is known any more, in words; "" while it is. `lost`: TensorBoard itself does not answer.
const stale = (live, lost) => {
  if (!live.answered || !(live.trouble || lost)) return "";
  const seconds = Math.max(0, live.time - live.answered + (performance.now() - live.came) / 1000);
  return `the numbers are of ${moment(live.answered)}, ${since(Math.round(seconds))} ago`;
};

export const showLive = live => {
  live.came = performance.now();
  look.live = live;
  show(live, false);
};

// TensorBoard does not answer: what it said last is not to be taken for what is.
export const showLost = () => {
  if (look.live) show(look.live, true);
  $("state").className = "unknown";
  write($("state"), "TensorBoard does not answer");
};

const show = (live, lost) => {
  const state = $("state"), sinceWhen = stale(live, lost), now = live.trouble || lost ? () => UNKNOWN : value => value;
  state.className = live.trouble ? "down" : "up";
  write(state, !live.trouble ? `${live.kind} is running` : live.trouble.startsWith(ABSENT) ? ABSENT : "the daemon cannot be asked");
  write($("about"), live.trouble || `version ${live.version}, pid ${live.pid}, since ${since(live.up_seconds)}`);
  write($("stale"), sinceWhen);
  for (const id of ["numbers", "notes", "runs"]) $(id).classList.toggle("stale", Boolean(sinceWhen));
  const dropped = Object.values(live.dropped || {}).reduce((sum, number) => sum + number, 0);
  const pairs = live.trouble && !live.pid ? [] : [
    ["records/s", now(count(live.records_per_second))], ["written/s", now(bytes(live.bytes_per_second))],
    ["lag", now(lag(live.lag_seconds)), !live.trouble && live.lag_seconds > LAG_HIGH_SECONDS], ["cpu", now(`${count(live.cpu_percent)} %`)],
    ["sessions", now(count(live.sessions))], ["memory", now(bytes(live.memory_bytes))],
    ["pending", count(live.pending)], ["dropped", count(dropped), dropped],
  ];
  $("numbers").replaceChildren(...pairs.map(([name, value, bad]) =>
    make("div", {}, make("dt", {}, name), make("dd", {class: bad ? "bad" : null}, value))));
  const notes = [
    ...Object.entries(live.dropped || {}).map(([reason, number]) =>
      `${count(number)} dropped, ${reason}${live.hints[reason] ? `: ${live.hints[reason]}` : ""}`),
    ...live.runs.filter(run => run.error).map(run => `${visible(run.run)} cannot be written: ${visible(run.error)}`),
    ...(live.disks || []).filter(disk => disk.free_bytes < disk.total_bytes * DISK_LOW_SHARE)
      .map(disk => `${bytes(disk.free_bytes)} are free on the disk of the ${disk.what}`),
    ...(live.notes || []).map(visible),
  ];
  $("notes").replaceChildren(...notes.map(note => make("p", {class: "note bad"}, note)));
  write($("elsewhere"), live.elsewhere ? `runs of this daemon outside of this log folder: ${count(live.elsewhere)}` : "");
  listRuns(lost);
};

export const listRuns = (lost = false) => {
  if (!$("runs")) return;
  const live = new Map((look.live?.runs || []).map(run => [run.run, run])), known = new Set(look.runs);
  const then = look.live?.trouble || lost;
  const side = run => /(^|\/)ranks$/.test(run) && known.has(run.replace(/\/?ranks$/, "") || ".");
  const all = [...new Set([...look.runs, ...live.keys()])].filter(run => !side(run)).sort(byName);
  const fits = matcher(look.runFilter), found = all.filter(fits), shown = found.slice(0, RUNS_SHOWN), kept = new Set(shown);
  const names = shorten(shown, NAME_LETTERS);
  for (const [run, item] of items) if (!kept.has(run)) { item.element.remove(); items.delete(run); }
  shown.forEach((run, place) => {
    if (!items.has(run)) items.set(run, itemOf(run));
    const item = items.get(run), state = live.get(run);
    if ($("runs").children[place] !== item.element) $("runs").insertBefore(item.element, $("runs").children[place] || null);
    paintSwatch(item.swatch, styleOfRun(run));
    write(item.name, names[place]);
    item.box.ariaLabel = names[place] === visible(run) ? null : visible(run);
    write(item.rate, !then && state && state.rate >= 0.5 ? `${count(state.rate)}/s` : "");
    write(item.ranks, state?.ranks ? (then ? "at last: " : "") + ranksOf(state.ranks) : "");
    write(item.values, (state?.values || []).map(([tag, step, value]) => `${shorten([tag], TAG_LETTERS)[0]} ${text(value)} at ${step}`).join(", "));
  });
  write($("runs-left"), found.length > shown.length ? `${count(found.length - shown.length)} more: filter them` : "");
};

const items = new Map(); // run to what is in the list of it, which stays: it may have the focus, or be clicked on
const itemOf = run => {
  const box = make("input", {type: "checkbox", "data-run": run, onchange: () => {
    look.off[box.checked ? "delete" : "add"](run);
    refresh();
  }});
  box.checked = !look.off.has(run);
  const [mark, rate, name] = [swatch(), make("span", {class: "dim"}), make("bdi", {class: "name"})];
  const [ranks, values] = [make("div", {class: "more"}), make("div", {class: "more"})];
  const label = make("label", {title: visible(run)}, box, mark, name, rate);
  const element = make("li", {onpointerenter: () => pointAt(run), onpointerleave: () => pointAt(null)}, label, ranks, values);
  return {element, box, swatch: mark, name, rate, ranks, values};
};
