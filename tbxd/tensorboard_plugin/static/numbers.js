// Numbers as they are written beside the charts. Pure functions.

const SMALL = 1e-4, LARGE = 1e6; // numbers beyond are written with an exponent
const DIGITS = 5; // of a number, where no more are needed
const OF_A_RANGE = 1000; // parts of a range that numbers tell apart

// The fewest digits that say which number it is, as a float32 where it is one.
const shortest = value => {
  const single = Math.fround(value) === value;
  for (let digits = 1; digits < 17; digits++) {
    const read = Number(value.toPrecision(digits));
    if (single ? Math.fround(read) === value : read === value) return digits;
  }
  return 17;
};

const written = (value, digits) => {
  const size = Math.abs(value);
  if (size && (size < SMALL || (size >= LARGE && digits <= Math.log10(size))))
    return value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
};

// A value, with as many digits as tell it from others of a range of this width; one that is not finite is a word.
export const text = (value, range = Infinity) => {
  if (typeof value === "string") return value;
  if (value === null || value === undefined) return "no value";
  const needed = value && range > 0 && range < Infinity ? Math.ceil(Math.log10((Math.abs(value) / range) * OF_A_RANGE)) : DIGITS;
  return written(value, Math.max(1, Math.min(shortest(value), Math.max(DIGITS, needed))));
};

// A value with all that is known of it.
export const exact = value => (typeof value === "number" ? written(value, shortest(value)) : text(value));

export const since = seconds => {
  if (seconds < 120) return `${Number(seconds.toPrecision(3))} s`;
  if (seconds < 7200) return `${Number((seconds / 60).toPrecision(3))} min`;
  return seconds < 172800 ? `${Number((seconds / 3600).toPrecision(3))} h` : `${Number((seconds / 86400).toPrecision(3))} d`;
};
export const lag = seconds => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : since(seconds));

export const count = number => Math.round(number).toLocaleString("en");

export const bytes = number => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  for (; number >= 1000 && place < units.length - 1; place++) number /= 1024;
  return `${Number(number.toPrecision(3))} ${units[place]}`;
};

const two = number => String(number).padStart(2, "0");

// A moment in seconds since 1970, as the time of day here; with its date where that is not today's, as on an axis.
export const moment = seconds => {
  if (seconds === null || !(Math.abs(seconds) <= 8.64e12)) return "no time";
  const date = new Date(seconds * 1000), now = new Date();
  const year = date.getFullYear() === now.getFullYear() ? "" : `${date.getFullYear()}-`;
  const day = date.toDateString() === now.toDateString() ? "" : `${year}${two(date.getMonth() + 1)}-${two(date.getDate())} `;
  return `${day}${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":")}`;
};
