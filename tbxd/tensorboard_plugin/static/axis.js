// Where the ticks of an axis are and what they say. Pure functions: no page, no canvas.
//
// A tick is {value, text}. Its text is made from two whole numbers, `number * 10 ** power`, and never from a rounded
// float: so no two ticks of an axis say the same, whatever the range, and what one says is where it is.

const SPREAD = 2 ** -50; // of the larger end, that is between ticks at the least: floats tell no less apart
const EXPONENT_PRICE = 2; // letters that a text may be longer and still be taken instead of one with an exponent
const PLAIN_ZEROS = 24; // a text without an exponent is not made with more
const THOUSANDS = [["k", 3, 1e4, 1e6], ["M", 6, 1e6, 1e9]]; // letter, power, and the largest numbers that it is for
const UNITS = [["s", 1, 120], ["min", 60, 7200], ["h", 3600, 172800], ["d", 86400, Infinity]]; // and up to what
const DAY = 86400, MICRO = 1e6;
const CLOCK_STEPS = [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200];
const DATE_SECONDS = 8.64e12; // what a Date can be, from 1970 (ECMA-262)

const times = (number, power) => Number(`${number}e${power}`); // as exact as a float can be

const plain = (number, power) => {
  const digits = String(Math.abs(number)), sign = number < 0 ? "-" : "";
  if (power >= 0) return sign + digits + "0".repeat(power);
  const long = digits.padStart(1 - power, "0");
  return `${sign}${long.slice(0, power)}.${long.slice(power)}`;
};

const scientific = (number, power) => {
  const digits = String(Math.abs(number)), rest = digits.slice(1);
  if (power + rest.length === 0) return plain(number, power);
  return `${number < 0 ? "-" : ""}${digits[0]}${rest ? `.${rest}` : ""}e${power + rest.length}`;
};

// The ticks of pairs [number, power], all written in one way: the shortest.
const told = pairs => {
  const whole = pairs.map(([number, power]) => {
    for (; number && number % 10 === 0; number /= 10) power++;
    return number ? [number, power] : [0, 0];
  });
  const values = whole.map(([number, power]) => times(number, power));
  const largest = Math.max(...values.map(Math.abs));
  const way = (make, price = 0, letter = "") => {
    const texts = whole.map(([number, power]) => (number ? make(number, power) + letter : "0"));
    return {texts, length: Math.max(...texts.map(text => text.length)) + price};
  };
  const ways = whole.every(([, power]) => Math.abs(power) <= PLAIN_ZEROS) ? [way(plain)] : [];
  for (const [letter, more, from, to] of THOUSANDS)
    if (largest >= from && largest < to) ways.push(way((number, power) => plain(number, power - more), 0, letter));
  ways.push(way(scientific, EXPONENT_PRICE));
  const best = ways.reduce((one, other) => (other.length < one.length ? other : one));
  return values.map((value, place) => ({value, text: best.texts[place]}));
};

// 1, 2 and 5 times powers of ten that are not smaller, in their order, as [factor, power].
const roundSteps = function* (least) {
  for (let power = Math.max(-324, Math.floor(Math.log10(least)) - 1); power <= 308; power++)
    for (const factor of [1, 2, 5]) if (times(factor, power) >= least) yield [factor, power];
};

// Places of ticks at multiples of a step: `found(step)` gives them; of the first step that has no more than `about`.
// Where that has none, one of the step before.
const few = (steps, about, found) => {
  let before = [];
  for (const step of steps) {
    const places = found(step);
    if (places.length && places.length <= about) return [step, places];
    if (!places.length) return before;
    before = [step, places.slice(places.length >> 1, (places.length >> 1) + 1)];
  }
  return before;
};

const MANY = 4; // times as many ticks are looked at as there may be

const between = (low, high, most) => {
  const places = [];
  for (let place = Math.ceil(low); place <= Math.floor(high) && places.length <= most; place++) places.push(place);
  return places;
};

// Ticks at 1, 2 or 5 times a power of ten, `about` of them at most and `smallest` apart at least, between two numbers.
export const linear = (low, high, about, smallest = Number.MIN_VALUE) => {
  const size = Math.max(Math.abs(low), Math.abs(high));
  if (!size) return [{value: 0, text: "0"}];
  const least = Math.max((high / about - low / about) / MANY, size * SPREAD, smallest);
  const [step, places] = few(roundSteps(least), about, ([factor, power]) => between(low / times(factor, power), high / times(factor, power), about)
    .filter(place => times(place * factor, power) >= low && times(place * factor, power) <= high));
  return step ? told(places.map(place => [place * step[0], step[1]])) : [];
};

// The same on a logarithmic axis, between two logarithms: powers of ten where it has several, else 1, 2 and 5 times
// such, else ticks as on a linear one.
export const logarithmic = (bottom, top, about) => {
  const powers = [];
  for (let power = Math.ceil(bottom); power <= Math.floor(top); power++) if (times(1, power) && power <= 308) powers.push(power);
  if (powers.length > 2 || powers.length > about) {
    const stride = Math.ceil(powers.length / about);
    return told(powers.filter(power => power % stride === 0).map(power => [1, power]));
  }
  const pairs = [];
  for (let power = Math.floor(bottom); power <= Math.ceil(top); power++) for (const factor of [1, 2, 5]) pairs.push([factor, power]);
  const inside = pairs.filter(pair => Math.log10(times(...pair)) >= bottom && Math.log10(times(...pair)) <= top);
  if (inside.length > 2 && inside.length <= about) return told(inside);
  return linear(10 ** bottom, Math.min(Number.MAX_VALUE, 10 ** top), about);
};

// Ticks of a stretch of time, in seconds, all in one unit.
export const relative = (low, high, about) => {
  const size = Math.max(Math.abs(low), Math.abs(high));
  const [name, seconds] = UNITS.find(([, , most]) => size < most);
  return linear(low / seconds, high / seconds, about).map(({value, text}) => ({value: value * seconds, text: `${text} ${name}`}));
};

const clockSteps = function* (least) {
  for (const step of CLOCK_STEPS) if (step >= least) yield step;
  for (const days of roundSteps(Math.max(1, least / DAY))) yield DAY * times(...days);
};

const two = number => String(number).padStart(2, "0");

// What a moment in whole microseconds since 1970 says: its date, and its time of day as far as the step needs.
const moment = (micros, step, utc) => {
  const seconds = Math.floor(micros / MICRO), date = new Date(seconds * 1000 + (step >= DAY ? DAY * 500 : 0));
  const part = name => date[`get${utc ? "UTC" : ""}${name}`]();
  const clock = [two(part("Hours")), two(part("Minutes"))];
  if (step < 60) clock.push(two(part("Seconds")));
  const decimals = step < 1 ? Math.ceil(-Math.log10(step)) : 0;
  const fraction = decimals ? `.${String(micros - seconds * MICRO).padStart(6, "0").slice(0, decimals)}` : "";
  return {year: String(part("FullYear")), day: `${two(part("Month") + 1)}-${two(part("Date"))}`,
    clock: step >= DAY ? "" : clock.join(":") + fraction};
};

// Ticks at moments, in seconds since 1970, that say the time of day here; and the date where there are several.
export const clock = (low, high, about, utc = false) => {
  if (Math.max(Math.abs(low), Math.abs(high)) > DATE_SECONDS - DAY)
    return linear(low, high, about).map(tick => ({...tick, text: `${tick.text} s`}));
  const ahead = utc ? 0 : -60 * new Date(low * 1000).getTimezoneOffset();
  const least = Math.max((high - low) / about / MANY, 1 / MICRO);
  const [step, places] = few(clockSteps(least), about, size => between((low + ahead) / size, (high + ahead) / size, about));
  if (!step) return [];
  const micros = places.map(place => Math.round(place * step * MICRO) - ahead * MICRO);
  const moments = micros.map(one => moment(one, step, utc));
  const differ = name => new Set(moments.map(one => one[name])).size > 1;
  const ends = [low, high].map(end => moment(Math.floor(end * MICRO), step, utc).year);
  const years = step >= DAY && (ends[0] !== ends[1] || differ("year")), days = step >= DAY || differ("day");
  const texts = moments.map(({year, day, clock}) =>
    [years ? `${year}-${day}` : days ? day : "", clock].filter(part => part).join(" ") + (utc ? " UTC" : ""));
  // Where clocks are set back an hour comes twice.
  if (!utc && new Set(texts).size < texts.length) return clock(low, high, about, true);
  return micros.map((one, place) => ({value: one / MICRO, text: texts[place]}));
};

// Ticks at steps, which are whole numbers.
export const steps = (low, high, about) => linear(low, high, about, 1);

export const AXES = {steps, relative, time: clock};

const clash = (low, high, pixels, gap, widthOf) => (tick, place, ticks) =>
  place && ((tick.value - ticks[place - 1].value) / (high - low)) * pixels < (widthOf(tick.text) + widthOf(ticks[place - 1].text)) / 2 + gap;

// As many ticks as have room side by side in so many pixels, `gap` between their texts; one where no two have.
export const fitting = (axis, low, high, pixels, gap, widthOf) => {
  if (!(low < high)) return axis(low, high, 1).length ? axis(low, high, 1).slice(0, 1) : [{value: low, text: String(low)}];
  let one = null;
  for (let about = Math.max(2, Math.floor(pixels / (2 * gap))); about > 0; about--) {
    const ticks = axis(low, high, about);
    if (ticks.length > 1 && !ticks.some(clash(low, high, pixels, gap, widthOf))) return ticks;
    if (ticks.length) one = ticks[0];
  }
  return one ? [one] : [{value: low, text: String(low)}];
};
