// Names of runs and tags as they are shown: whatever they hold, and cut where they are alike. Pure functions.

const CUT = "…";
const NEAR = 3; // letters that are kept before the one in which a name differs
const MORE = 4; // letters that names get which are not told apart yet
// What cannot be seen, or changes how its neighbours are seen: control characters, marks of direction, spaces of no
// width, line ends, halves of pairs. Joiners stay (emoji, and scripts that need them). So does a backslash, unless
// it would look like one of ours.
const HIDDEN = /[\p{Cc}\p{Cs}\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202f\u2060-\u206f\u3164\ufeff\uffa0]|\\(?=u\{)/gu;

// One line of letters that can be seen; of two names that differ it makes two that do.
export const visible = name => name.replace(HIDDEN, one => `\\u{${one.codePointAt(0).toString(16)}}`);

const segmenter = typeof Intl !== "undefined" && Intl.Segmenter ? new Intl.Segmenter("en", {granularity: "grapheme"}) : null;
const ASCII = /^[ -~]*$/;
const letters = text => (segmenter && !ASCII.test(text) ? Array.from(segmenter.segment(text), part => part.segment) : Array.from(text));

// How many letters two begin with in common.
const common = (one, other) => {
  const most = Math.min(one.length, other.length);
  let place = 0;
  while (place < most && one[place] === other[place]) place++;
  return place;
};

const SEPARATOR = /[/\\_,:; ]/; // behind which what all names begin with may end: no number has one

// `most` letters of a name, of which one is that at `where`.
const cut = (name, most, where) => {
  if (name.length <= most) return name;
  const tail = Math.floor((most - 1) / 3), head = most - 1 - tail;
  if (where < head || where >= name.length - tail) return [...name.slice(0, head), CUT, ...name.slice(name.length - tail)];
  const from = Math.max(0, where - NEAR), end = name.slice(from, from + most - 2);
  return [CUT, ...end, ...(from + most - 2 < name.length ? [CUT] : [])];
};

// The names, each in `most` letters or little more: no two are the same that were not. What all begin with is left out.
export const shorten = (names, most) => {
  const whole = names.map(name => letters(visible(name)));
  if (whole.every(name => name.length <= most)) return whole.map(name => name.join(""));
  let shared = names.length > 1 ? whole.reduce((least, name) => Math.min(least, common(name, whole[0])), Infinity) : 0;
  while (shared && !SEPARATOR.test(whole[0][shared - 1])) shared--;
  const rests = shared > 1 ? whole.map(name => [CUT, ...name.slice(shared)]) : whole;
  const order = [...rests.keys()].sort((a, b) => (rests[a].join("") < rests[b].join("") ? -1 : 1));
  const where = rests.map(() => 0);
  order.forEach((one, place) => {
    for (const other of [order[place - 1], order[place + 1]])
      if (other !== undefined) where[one] = Math.max(where[one], common(rests[one], rests[other]));
  });
  const room = rests.map(() => Math.max(3, most));
  for (;;) {
    const made = rests.map((name, place) => cut(name, room[place], Math.min(where[place], name.length - 1)).join(""));
    const times = new Map();
    for (const one of made) times.set(one, (times.get(one) || 0) + 1);
    const alike = [...made.keys()].filter(place => times.get(made[place]) > 1 && room[place] < rests[place].length);
    if (!alike.length) return made;
    for (const place of alike) room[place] += MORE;
  }
};
