// One chart on a canvas: curves, the band over ranks, and a cursor.

import {AXES, fitting, linear, logarithmic} from "./axis.js";

const RIGHT = 12, TOP = 8, BOTTOM = 24; // pixels around the plot
const LEFT_LEAST = 34, BESIDE = 6, LEFT_SHARE = 0.45; // at its left: room for the labels, up to a share of the width
const GAP = 12, TICK_HEIGHT = 28; // between labels side by side, and between ticks one above the other, at the least
const PAD = 0.05, LOG_PAD = 0.1; // of the range, above and below; of a decade, where the range is nothing
const HUGE = 1e307; // numbers beyond are drawn in parts, as their differences are too large for a float
const WIDTH = 1.6, BOLD = 3, FADED = 0.2; // of lines; how opaque those are that are not pointed at

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

const drawable = (x, y, log) => x !== null && y !== null && !(log && y <= 0);

// `curves`: [{color, dash, x, y, raw, low: [x, y], high: [x, y], faded, bold}]; `view`: {log, axis, cursor, colors:
// {text, line}}. Returns where things are, or null where there is nothing to draw.
export const draw = (canvas, curves, view) => {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return null;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const range = rangeOf(curves, view.log);
  if (!range) return null;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "11px Roboto, system-ui, sans-serif";
  const part = Math.max(Math.abs(range.low), Math.abs(range.high)) > HUGE && !view.log ? 0.125 : 1;
  const scale = value => (view.log ? Math.log10(value) : value * part);
  const pad = padOf(scale(range.low), scale(range.high), view.log);
  const bottom = scale(range.low) - pad, top = scale(range.high) + pad;
  const plot = {height: height - TOP - BOTTOM};
  const about = Math.max(2, Math.floor(plot.height / TICK_HEIGHT));
  const ticks = view.log ? logarithmic(bottom, top, about)
    : part === 1 ? linear(bottom, top, about) : linear(range.low, range.high, about);
  const widest = Math.max(0, ...ticks.map(tick => pen.measureText(tick.text).width));
  plot.left = Math.min(Math.max(LEFT_LEAST, Math.ceil(widest) + 2 * BESIDE), width * LEFT_SHARE);
  plot.width = width - plot.left - RIGHT;
  const across = x => plot.left + (range.last > range.first ? (x - range.first) / (range.last - range.first) : 0.5) * plot.width;
  const up = y => TOP + (1 - (scale(y) - bottom) / (top - bottom)) * plot.height;
  frame(pen, range, view, {ticks, across, up, plot, width, height});
  pen.save();
  pen.beginPath();
  pen.rect(plot.left - 2, TOP - 2, plot.width + 4, plot.height + 4);
  pen.clip();
  for (const curve of curves) if (curve.low) band(pen, curve, across, up, view.log);
  for (const curve of [...curves.filter(one => !one.bold), ...curves.filter(one => one.bold)]) {
    const opacity = curve.faded ? FADED : 1;
    if (curve.raw !== curve.y) line(pen, curve, curve.raw, 0.28 * opacity, across, up, view.log);
    line(pen, curve, curve.y, opacity, across, up, view.log);
  }
  if (view.cursor !== null) {
    pen.strokeStyle = view.colors.text;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(across(view.cursor), TOP);
    pen.lineTo(across(view.cursor), TOP + plot.height);
    pen.stroke();
  }
  pen.restore();
  return {at: pixel => range.first + ((pixel - plot.left) / plot.width) * (range.last - range.first), across, up, range, ticks};
};

// What is left above and below, so that a curve does not lie on the edge and one value has a range.
const padOf = (low, high, log) => {
  if (high > low) return (high - low) * PAD || Number.MIN_VALUE;
  return log ? LOG_PAD : Math.abs(high) * PAD || (high ? Number.MIN_VALUE : 1);
};

const rangeOf = (curves, log) => {
  let first = Infinity, last = -Infinity, low = Infinity, high = -Infinity;
  const take = (xs, ys) => ys.forEach((y, place) => {
    if (!drawable(xs[place], y, log)) return;
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
  const {plot, width, height} = place;
  pen.strokeStyle = view.colors.line;
  pen.fillStyle = view.colors.text;
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const tick of place.ticks) {
    const y = Math.round(place.up(tick.value)) + 0.5;
    pen.beginPath();
    pen.moveTo(plot.left, y);
    pen.lineTo(width - RIGHT, y);
    pen.stroke();
    pen.fillText(tick.text, plot.left - BESIDE, y, plot.left - BESIDE);
  }
  pen.textAlign = "center";
  pen.textBaseline = "top";
  const wide = text => pen.measureText(text).width;
  for (const tick of fitting(AXES[view.axis], range.first, range.last, plot.width, GAP, wide)) {
    const half = wide(tick.text) / 2;
    pen.fillText(tick.text, Math.max(half, Math.min(place.across(tick.value), width - half)), height - BOTTOM + 7);
  }
};

const line = (pen, curve, ys, opacity, across, up, log) => {
  pen.globalAlpha = opacity;
  pen.strokeStyle = pen.fillStyle = curve.color;
  pen.lineWidth = curve.bold ? BOLD : WIDTH;
  pen.lineJoin = "round";
  const there = ys.map((y, place) => drawable(curve.x[place], y, log));
  // Where steps go back a line ends and another begins: nothing was logged between the two.
  const goesOn = there.map((is, place) => is && there[place - 1] && curve.x[place] >= curve.x[place - 1]);
  pen.setLineDash(curve.dash);
  pen.beginPath();
  there.forEach((is, place) => {
    if (is) pen[goesOn[place] ? "lineTo" : "moveTo"](across(curve.x[place]), up(ys[place]));
  });
  pen.stroke();
  pen.setLineDash([]);
  there.forEach((is, place) => { // what has no neighbour is no line
    if (!is || goesOn[place] || goesOn[place + 1]) return;
    pen.beginPath();
    pen.arc(across(curve.x[place]), up(ys[place]), there.length > 1 ? 2 : 3, 0, 2 * Math.PI);
    pen.fill();
  });
  pen.globalAlpha = 1;
};

const band = (pen, curve, across, up, log) => {
  const edge = ([xs, ys]) => xs.map((x, place) => [x, ys[place]]).filter(([x, y]) => drawable(x, y, log));
  const around = [...edge(curve.low), ...edge(curve.high).reverse()];
  if (around.length < 4) return;
  pen.globalAlpha = curve.faded ? 0.22 * FADED : 0.22;
  pen.fillStyle = curve.color;
  pen.beginPath();
  around.forEach(([x, y], place) => pen[place ? "lineTo" : "moveTo"](across(x), up(y)));
  pen.fill();
  pen.globalAlpha = 1;
};
