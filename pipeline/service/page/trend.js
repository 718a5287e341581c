// One number over many deploys: a chart with p50, p90 and budget as lines, and a small one for a row of a table.
// Charts are drawn at the size that they have, so that words stay as large as the page's.

import { el, svg } from "./dom.js";
import { ticks } from "./plot.js";

const HEIGHT = 220;
const LEFT = 64;
const RIGHT = 12;
const NAMES = 52;
const VALUES = 112;
const BOTTOM = 24;
const TOP = 10;

/** `points`: {label, value, kind, title}, oldest first; `lines`: {name, value, css}; `format`: value to text. */
export function trend(points, lines, format, name) {
  const box = el("div", { class: "chart" });
  const draw = () => {
    const width = Math.max(240, Math.floor(box.clientWidth));
    box.replaceChildren(picture(points, lines.filter((one) => Number.isFinite(one.value)), format, name, width));
  };
  new ResizeObserver(() => box.clientWidth !== box.drawn && ((box.drawn = box.clientWidth), draw())).observe(box);
  return box;
}

function picture(points, lines, format, name, width) {
  const made = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": name });
  if (!points.length) {
    made.append(label(width / 2, HEIGHT / 2, "nothing was measured yet", "middle"));
    return made;
  }
  const narrow = width < 560;
  const right = !lines.length ? RIGHT : narrow ? NAMES : VALUES;
  const values = [...points.map((one) => one.value), ...lines.filter((one) => one.css !== "limit").map((one) => one.value)];
  let high = Math.max(...values, 1);
  // A budget far above everything would press the points to the floor; the table says it then.
  const limit = lines.find((one) => one.css === "limit");
  if (limit && limit.value <= high * 2.5) high = Math.max(high, limit.value);
  let low = Math.min(...values);
  if (low === high) [low, high] = [low * 0.9, high * 1.1 + 1]; // a level is not a floor
  const log = high / Math.max(low, 1) > 20;
  const floor = log ? 10 ** Math.floor(Math.log10(Math.max(low, 1))) : Math.max(0, low > high * 0.6 ? low - (high - low) * 0.5 : 0);
  high = log ? high * 1.2 : high + (high - floor) * 0.06 + (high === floor ? 1 : 0);
  const part = (value) => (log ? Math.log(Math.max(value, floor) / floor) / Math.log(high / floor) : (value - floor) / (high - floor));
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - part(value));
  const x = (index) => LEFT + (width - LEFT - right) * (points.length === 1 ? 0.5 : index / (points.length - 1));
  for (const tick of levels(floor, high, log)) {
    made.append(svg("line", { x1: LEFT, x2: width - right, y1: y(tick), y2: y(tick), class: "grid" }), label(LEFT - 8, y(tick) + 4, format(tick), "end"));
  }
  const steady = points.map((one, index) => [one, index]).filter(([one]) => one.kind === "warm" || one.kind === "size");
  made.append(svg("polyline", { class: "trend", points: steady.map(([one, index]) => `${x(index).toFixed(1)},${y(one.value).toFixed(1)}`).join(" ") }));
  let above = -Infinity;
  for (const one of lines.filter((each) => each.value <= high).sort((a, b) => b.value - a.value)) {
    made.append(svg("line", { x1: LEFT, x2: width - right, y1: y(one.value), y2: y(one.value), class: one.css }, svg("title", {}, `${one.name} ${format(one.value)}`)));
    above = Math.max(y(one.value), above + 13);
    const text = label(width - right + 8, above + 4, narrow ? one.name : `${one.name} ${format(one.value)}`, "start");
    text.classList.add(`${one.css}-text`);
    made.append(text);
  }
  points.forEach((one, index) => {
    made.append(svg("circle", { cx: x(index).toFixed(1), cy: y(one.value).toFixed(1), r: 3.5, class: `dot ${one.kind}` }, svg("title", {}, one.title)));
  });
  made.append(label(LEFT, HEIGHT - 6, points[0].label, "start"));
  if (points.length > 1) made.append(label(width - right, HEIGHT - 6, points.at(-1).label, "end"));
  return made;
}

function levels(floor, high, log) {
  if (!log) return ticks(floor, high, 4);
  const found = [];
  for (let value = floor; value <= high; value *= 10) found.push(value);
  return found;
}

function label(x, y, text, anchor) {
  return svg("text", { x, y, "text-anchor": anchor, class: "axis-text" }, text);
}

/** A line of 120 by 24, with its last value as a dot. */
export function spark(values, name) {
  const made = svg("svg", { viewBox: "0 0 120 24", width: 120, height: 24, class: "spark", role: "img", "aria-label": name });
  if (values.length < 2) return made;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const y = (value) => 21 - 18 * (high > low ? (value - low) / (high - low) : 0.5);
  const x = (index) => 2 + (114 * index) / (values.length - 1);
  made.append(svg("polyline", { class: "trend", points: values.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
  made.append(svg("circle", { cx: x(values.length - 1), cy: y(values.at(-1)), r: 2.5, class: "dot warm" }));
  return made;
}
