// How the curve of a run looks: in the colour that was asked for, or in that of its name (palette.js). This browser
// remembers the latter.

import {DASHES, alike, assign, colorOf, dashOf, hash} from "./palette.js";
import {dark, look, make} from "./state.js";

const REMEMBERED = "tbxd.slots", REMEMBERED_MAX = 5000; // where, and of how many names
const SWATCH = 20; // pixels of line beside a name

let slots = new Map(); // run to its slot
let askers = new Map(); // colour to the runs that ask for it, in the order in which they began
let whole = new Map(); // run to the colour that it asks for with all its tags

const remembered = () => {
  try { return new Map(JSON.parse(localStorage.getItem(REMEMBERED)) || []); } catch { return new Map(); }
};

const remember = known => {
  try { localStorage.setItem(REMEMBERED, JSON.stringify([...known].slice(-REMEMBERED_MAX))); } catch { /* none is kept here */ }
};

// To be called when there are other runs or tags.
export const recolor = () => {
  const colors = new Map(), plain = new Set(); // run to the colours that it asks for; runs with a tag that asks for none
  for (const {set, colors: asked} of look.tags.values()) {
    for (const [run, color] of asked) {
      if (!colors.has(run)) colors.set(run, new Set());
      colors.get(run).add(color);
    }
    if (asked.size < look.sets[set].length) for (const run of look.sets[set]) if (!asked.has(run)) plain.add(run);
  }
  [askers, whole] = [new Map(), new Map()];
  for (const run of look.runs) {
    const asked = [...(colors.get(run) || [])];
    for (const color of asked) askers.set(color, [...(askers.get(color) || []), run]);
    if (asked.length === 1 && !plain.has(run)) whole.set(run, asked[0]);
  }
  const known = remembered();
  slots = assign(look.runs, known, alike(askers.keys()));
  for (const [run, slot] of slots) { known.delete(hash(run)); known.set(hash(run), slot); }
  remember(known);
};

// Runs that ask for the same colour differ by their dashes.
const asked = (color, run) => ({color, dash: DASHES[Math.max(0, askers.get(color)?.indexOf(run) ?? 0) % DASHES.length]});
const own = run => {
  const slot = slots.get(run);
  return slot === undefined ? {color: "var(--dim)", dash: []} : {color: colorOf(slot, dark()), dash: dashOf(slot)};
};

export const styleOf = (tag, run) => {
  const color = look.tags.get(tag)?.colors.get(run);
  return color ? asked(color, run) : own(run);
};
export const styleOfRun = run => (whole.has(run) ? asked(whole.get(run), run) : own(run));

export const swatch = () => make("span", {class: "swatch", "aria-hidden": "true"});

// A piece of the line, beside the name of its run.
export const paintSwatch = (element, {color, dash}) => {
  const stops = [];
  let place = 0;
  for (let turn = 0; dash.length && place < SWATCH; turn++) {
    const end = place + dash[turn % dash.length], ink = turn % 2 ? "transparent" : color;
    stops.push(`${ink} ${place}px ${end}px`);
    place = end;
  }
  const [image, flat] = stops.length ? [`linear-gradient(90deg, ${stops.join(", ")})`, "transparent"] : ["none", color];
  if (element.drawn === image + flat) return;
  element.drawn = image + flat;
  element.style.color = color;
  element.style.backgroundImage = image;
  element.style.backgroundColor = flat;
};
