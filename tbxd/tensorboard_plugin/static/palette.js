// Which colour a run has, by its name. Pure functions; what has to be remembered is handed in and out.
//
// A slot is a colour and a way to draw the line: `slot % LIGHT.length` and `Math.floor(slot / LIGHT.length)`. A run's name
// says which it would have. Where that is another's, the run that began later takes the next that is free, and who has a
// slot keeps it, whoever comes or goes.

// Found by a search for the largest least distance (CIEDE2000) among colours with a contrast of 3 to what is behind
// them; tests/browser/test_board_looks.py measures both. The two are of one hue, as far as there are such.
export const LIGHT = ["#0096a5", "#0069a5", "#0096ff", "#9687e1", "#002db4", "#695a96", "#962dff", "#5a1e5a", "#ff1eff", "#c30096",
  "#c37896", "#96003c", "#ff005a", "#a5695a", "#961e00", "#ff4b0f", "#5a3c0f", "#c38700", "#696900", "#5aa500", "#1e3c0f",
  "#00781e", "#00a578", "#00695a"];
export const DARK = ["#00ffff", "#0096a5", "#00d2ff", "#b4d2ff", "#0096f0", "#8787c3", "#f0d2ff", "#e100ff", "#ff87d2", "#b47887",
  "#ff2d5a", "#ffa596", "#f04b00", "#c37800", "#c3a578", "#ffb400", "#968700", "#c3c300", "#e1f0b4", "#96ff00", "#87a578",
  "#00a500", "#00ffa5", "#1ec3a5"];
// Pixels that are drawn and left out in turns; the first is a whole line.
export const DASHES = [[], [6, 3], [2, 2], [9, 2, 2, 2], [12, 4], [1, 3], [9, 2, 2, 2, 2, 2], [4, 6], [14, 3, 4, 3]];
export const SLOTS = LIGHT.length * DASHES.length;
const STRIDE = 7; // to the next slot that is tried: a colour of another hue; it has no divisor in common with their number
const ALIKE = 0.1; // a distance in OKLab under which two colours count as one

// FNV-1a with the finish of MurmurHash3: names that differ in their last letter are far apart.
export const hash = name => {
  let found = 0x811c9dc5;
  for (let place = 0; place < name.length; place++) found = Math.imul(found ^ name.charCodeAt(place), 0x01000193);
  found = Math.imul(found ^ (found >>> 16), 0x85ebca6b);
  found = Math.imul(found ^ (found >>> 13), 0xc2b2ae35);
  return (found ^ (found >>> 16)) >>> 0;
};

const oklab = color => {
  const [r, g, b] = [1, 3, 5].map(place => parseInt(color.slice(place, place + 2), 16) / 255)
    .map(part => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s, 1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s];
};

// The places of colours that look like one that was asked for, and would be taken for it.
export const alike = asked => {
  const points = [...asked].filter(color => /^#[0-9a-f]{6}$/i.test(color)).map(oklab);
  const near = color => points.some(point => Math.hypot(...oklab(color).map((part, place) => part - point[place])) < ALIKE);
  return new Set([...LIGHT.keys()].filter(place => near(LIGHT[place]) || near(DARK[place])));
};

const free = (name, taken, avoided) => {
  const first = hash(name), count = LIGHT.length;
  const places = LIGHT.map((_, turn) => (first + STRIDE * turn) % count);
  const whole = places.find(place => !taken.has(place) && !avoided.has(place));
  if (whole !== undefined) return whole;
  for (let dash = 0; dash < DASHES.length; dash++)
    for (const place of places) if (!taken.has(dash * count + place)) return dash * count + place;
  return first % SLOTS;
};

// `names`: in the order in which they began. `known`: hash of a name to the slot that it had. `avoided`: see `alike`.
// Returns a Map of name to slot; no two have the same while there are no more than SLOTS.
export const assign = (names, known, avoided) => {
  const slots = new Map(), taken = new Set();
  const give = (name, slot) => { slots.set(name, slot); taken.add(slot); };
  for (const name of names) {
    const slot = known.get(hash(name));
    if (Number.isInteger(slot) && slot >= 0 && slot < SLOTS && !taken.has(slot)) give(name, slot);
  }
  for (const name of names) if (!slots.has(name)) give(name, free(name, taken, avoided));
  return slots;
};

export const colorOf = (slot, dark) => (dark ? DARK : LIGHT)[slot % LIGHT.length];
export const dashOf = slot => DASHES[Math.floor(slot / LIGHT.length) % DASHES.length];
