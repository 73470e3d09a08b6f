// One chart on a canvas: curves, the band over ranks, and a cursor.

const LEFT = 58, RIGHT = 10, TOP = 8, BOTTOM = 24; // pixels around the plot
const TICK_PIXELS = 45, TICK_HEIGHT = 28; // between ticks, at the least
const SMALL = 1e-4, LARGE = 1e6; // numbers beyond are written with an exponent

export const text = value => {
  if (value === null || value === undefined) return "not finite";
  const size = Math.abs(value);
  if (size && (size < SMALL || size >= LARGE)) return value.toExponential(3);
  return String(Number(value.toPrecision(5)));
};

const short = value => {
  const size = Math.abs(value);
  if (size >= LARGE || (size && size < SMALL)) return value.toExponential(1).replace("e+", "e").replace(".0e", "e");
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  return String(Number(value.toPrecision(4)));
};

export const since = seconds => {
  if (seconds < 120) return `${Number(seconds.toPrecision(3))} s`;
  return seconds < 7200 ? `${Number((seconds / 60).toPrecision(3))} min` : `${Number((seconds / 3600).toPrecision(3))} h`;
};

// Ticks at 1, 2 or 5 times a power of ten.
const ticks = (low, high, about) => {
  const raw = (high - low) / Math.max(1, about), power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(size => size >= raw) ?? raw;
  const found = [];
  for (let tick = Math.ceil(low / step); tick * step <= high && found.length < 50; tick++) found.push(tick * step);
  return found;
};

// An exponential mean, divided by the weight that it has so far: the first value counts as itself.
export const smoothed = (values, weight) => {
  if (!weight) return values;
  let mean = 0, total = 0;
  return values.map(value => {
    if (value === null) return null;
    mean = mean * weight + (1 - weight) * value;
    total = total * weight + (1 - weight);
    return mean / total;
  });
};

// `curves`: [{color, x, y, raw, low: [x, y], high: [x, y]}]; `view`: {log, axis, cursor, colors: {text, line}}.
export const draw = (canvas, curves, view) => {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return null;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "11px Roboto, system-ui, sans-serif";
  const range = rangeOf(curves, view.log);
  if (!range) {
    pen.fillStyle = view.colors.text;
    pen.fillText(view.log ? "no positive value" : "no finite value", LEFT, height / 2);
    return null;
  }
  const scale = value => (view.log ? Math.log10(value) : value);
  const bottom = scale(range.low), top = scale(range.high);
  const pad = (top - bottom) * 0.05 || Math.max(Math.abs(top) * 0.05, 1e-9);
  const plot = {width: width - LEFT - RIGHT, height: height - TOP - BOTTOM};
  const across = x => LEFT + (range.last > range.first ? (x - range.first) / (range.last - range.first) : 0.5) * plot.width;
  const up = y => TOP + (1 - (scale(y) - bottom + pad) / (top - bottom + 2 * pad)) * plot.height;
  frame(pen, range, view, {across, plot, width, height, bottom: bottom - pad, top: top + pad});
  pen.save();
  pen.beginPath();
  pen.rect(LEFT - 2, TOP - 2, plot.width + 4, plot.height + 4);
  pen.clip();
  for (const curve of curves) if (curve.low) band(pen, curve, across, up, view.log);
  for (const curve of curves) {
    if (curve.raw !== curve.y) line(pen, curve.x, curve.raw, curve.color, 0.28, across, up, view.log);
    line(pen, curve.x, curve.y, curve.color, 1, across, up, view.log);
  }
  if (view.cursor !== null) {
    pen.strokeStyle = view.colors.text;
    pen.beginPath();
    pen.moveTo(across(view.cursor), TOP);
    pen.lineTo(across(view.cursor), TOP + plot.height);
    pen.stroke();
  }
  pen.restore();
  return {at: pixel => range.first + ((pixel - LEFT) / plot.width) * (range.last - range.first), across};
};

const rangeOf = (curves, log) => {
  let first = Infinity, last = -Infinity, low = Infinity, high = -Infinity;
  const take = (xs, ys) => ys.forEach((y, place) => {
    if (y === null || (log && y <= 0)) return;
    first = Math.min(first, xs[place]); last = Math.max(last, xs[place]);
    low = Math.min(low, y); high = Math.max(high, y);
  });
  for (const curve of curves) {
    take(curve.x, curve.raw);
    if (curve.low) { take(...curve.low); take(...curve.high); }
  }
  return low <= high ? {first, last, low, high} : null;
};

const frame = (pen, range, view, place) => {
  pen.strokeStyle = view.colors.line;
  pen.fillStyle = view.colors.text;
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  const all = ticks(place.bottom, place.top, place.plot.height / TICK_HEIGHT);
  const whole = view.log ? all.filter(Number.isInteger) : []; // powers of ten, where there are any
  for (const tick of whole.length ? whole : all) {
    const y = Math.round(TOP + (1 - (tick - place.bottom) / (place.top - place.bottom)) * place.plot.height) + 0.5;
    pen.beginPath();
    pen.moveTo(LEFT, y);
    pen.lineTo(place.width - RIGHT, y);
    pen.stroke();
    pen.fillText(short(view.log ? 10 ** tick : tick), LEFT - 5, y);
  }
  pen.textAlign = "center";
  pen.textBaseline = "top";
  if (view.axis === "time") {
    pen.fillText(new Date(range.first * 1000).toLocaleTimeString(), LEFT + 20, place.height - BOTTOM + 7);
    if (range.last > range.first)
      pen.fillText(new Date(range.last * 1000).toLocaleTimeString(), place.width - RIGHT - 26, place.height - BOTTOM + 7);
    return;
  }
  const label = view.axis === "relative" ? since : short;
  for (const tick of range.last > range.first ? ticks(range.first, range.last, place.plot.width / TICK_PIXELS) : [range.first])
    pen.fillText(label(tick), Math.min(place.across(tick), place.width - 22), place.height - BOTTOM + 7);
};

const line = (pen, xs, ys, color, opacity, across, up, log) => {
  pen.globalAlpha = opacity;
  pen.strokeStyle = pen.fillStyle = color;
  pen.lineWidth = 1.6;
  pen.lineJoin = "round";
  const there = ys.map(y => y !== null && !(log && y <= 0));
  pen.beginPath();
  there.forEach((is, place) => {
    if (is) pen[there[place - 1] ? "lineTo" : "moveTo"](across(xs[place]), up(ys[place]));
  });
  pen.stroke();
  there.forEach((is, place) => { // what has no neighbour is no line
    if (!is || there[place - 1] || there[place + 1]) return;
    pen.beginPath();
    pen.arc(across(xs[place]), up(ys[place]), there.length > 1 ? 2 : 3, 0, 2 * Math.PI);
    pen.fill();
  });
  pen.globalAlpha = 1;
};

const band = (pen, curve, across, up, log) => {
  const edge = ([xs, ys]) => xs.map((x, place) => [x, ys[place]]).filter(([, y]) => y !== null && !(log && y <= 0));
  const around = [...edge(curve.low), ...edge(curve.high).reverse()];
  if (around.length < 4) return;
  pen.globalAlpha = 0.22;
  pen.fillStyle = curve.color;
  pen.beginPath();
  around.forEach(([x, y], place) => pen[place ? "lineTo" : "moveTo"](across(x), up(y)));
  pen.fill();
  pen.globalAlpha = 1;
};
