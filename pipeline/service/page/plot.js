// The plotter: a lane for each chosen series on one canvas, over one time axis. A small plotter of our own: lanes need no
// second axis, no legend and no library.

import { $, clock, colour, count, el, paced, say } from "./dom.js";
import { Series } from "./series.js";

const MOST_LANES = 6;
const LEFT = 64;
const RIGHT = 12;
const AXIS = 22;

/** Round values from `low` to `high`, about so many. */
export function ticks(low, high, about) {
  const raw = (high - low) / about;
  if (!(raw > 0) || !Number.isFinite(raw)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= raw * 0.999);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step / 1e6 ? 0 : value);
  return found;
}

export function number(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return value.toExponential(2);
  return String(Number(value.toPrecision(6)));
}

export class Plot {
  constructor() {
    this.canvas = $("plot-canvas");
    this.body = $("plot-series").tBodies[0];
    this.draw = paced(() => this.render());
    this.empty();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    $("plot-window").addEventListener("change", () => this.draw());
    $("plot-pause").addEventListener("click", () => this.pause(!this.frozen));
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -8, ArrowRight: 8, Home: -1e6, End: 1e6 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const from = this.pointer ?? this.canvas.clientWidth - RIGHT;
      this.point(Math.min(Math.max(from + step, LEFT), this.canvas.clientWidth - RIGHT));
    });
  }

  empty() {
    this.series = new Series();
    this.chosen = new Set();
    this.untouched = true;
    this.newest = 0;
    this.frozen = null;
    this.pointer = null;
    this.rows = new Map();
    this.body?.replaceChildren();
    this.note();
    this.draw();
  }

  pause(on) {
    this.frozen = on ? this.newest : null;
    $("plot-pause").setAttribute("aria-pressed", String(on));
    say($("plot-pause"), on ? "Resume" : "Pause");
    this.draw();
  }

  /** A line of the log. */
  hear(line) {
    if (this.series.add(line.t, line.plain)) this.names();
    if (this.untouched && this.chosen.size < 2) this.chooseFirst();
    this.newest = Math.max(this.newest, line.t);
    this.draw();
  }

  names() {
    for (const [name] of this.series.byName) {
      if (this.rows.has(name)) continue;
      const box = el("input", { type: "checkbox", checked: this.chosen.has(name), on: { change: () => this.choose(name, box) } });
      const cells = [0, 1, 2, 3].map(() => el("td", { class: "n" }));
      const swatch = el("i", { class: "swatch" });
      const row = el("tr", {}, el("th", { scope: "row" }, el("label", { class: "check" }, box, swatch, name)), ...cells);
      this.rows.set(name, { row, cells, box, swatch });
      this.body.append(row);
    }
    this.note();
  }

  /** Until somebody chooses: the first that speak again and again. */
  chooseFirst() {
    for (const [name, one] of this.series.byName) {
      if (this.chosen.size >= 2) break;
      if (one.n < 3 || this.chosen.has(name)) continue;
      this.chosen.add(name);
      this.rows.get(name).box.checked = true;
    }
    this.note();
  }

  choose(name, box) {
    this.untouched = false;
    if (box.checked && this.chosen.size >= MOST_LANES) box.checked = false;
    if (box.checked) this.chosen.add(name);
    else this.chosen.delete(name);
    this.note();
    this.draw();
  }

  note() {
    const more = this.series.refused.size;
    const text = this.series.byName.size === 0 ? "No numbers yet: fields of JSON lines and name=value pairs appear here." : `${this.chosen.size} of ${MOST_LANES} lanes`;
    say($("plot-note"), more ? `${text} · ${count(more)} more names have no place` : text);
  }

  point(x) {
    this.pointer = x;
    this.draw();
  }

  // --- drawing ---------------------------------------------------------------------------------

  span() {
    const end = this.frozen ?? this.newest;
    const seconds = Number($("plot-window").value);
    const first = Math.min(end - 1000, ...[...this.chosen].map((name) => this.series.byName.get(name).at[0] ?? end));
    return [seconds ? Math.max(first, end - seconds * 1000) : first, end];
  }

  render() {
    if (this.canvas.clientWidth === 0) return;
    const lanes = [...this.chosen].map((name) => this.series.byName.get(name));
    this.table(lanes);
    const ratio = devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (this.canvas.width !== Math.round(width * ratio)) this.canvas.width = Math.round(width * ratio);
    if (this.canvas.height !== Math.round(height * ratio)) this.canvas.height = Math.round(height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = "11px system-ui, sans-serif";
    const [begin, end] = this.span();
    const place = (at) => LEFT + ((at - begin) / Math.max(1, end - begin)) * (width - LEFT - RIGHT);
    this.axis(pen, begin, end, place, width, height);
    const tall = (height - AXIS) / Math.max(1, lanes.length);
    lanes.forEach((one, index) => this.lane(pen, one, index, { top: index * tall, tall, begin, end, place, width }));
    this.cross(pen, lanes, { begin, end, width, height });
  }

  axis(pen, begin, end, place, width, height) {
    pen.fillStyle = colour("--quiet");
    pen.strokeStyle = colour("--line");
    pen.textAlign = "center";
    pen.textBaseline = "alphabetic";
    for (const at of ticks(begin / 1000, end / 1000, Math.max(2, Math.floor(width / 160)))) {
      const x = Math.round(place(at * 1000)) + 0.5;
      if (x < LEFT || x > width - RIGHT) continue;
      line(pen, x, 0, x, height - AXIS);
      if (x > LEFT + 24 && x < width - 28) pen.fillText(clock(at * 1000).slice(0, 8), x, height - 7);
    }
  }

  lane(pen, one, index, { top, tall, begin, end, place, width }) {
    const [low, high] = bounds(one, begin, end);
    const down = (value) => top + 18 + (1 - (value - low) / (high - low)) * (tall - 28);
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const value of ticks(low, high, Math.max(1, Math.floor(tall / 42)))) {
      const y = Math.round(down(value)) + 0.5;
      pen.strokeStyle = colour("--line");
      line(pen, LEFT, y, width - RIGHT, y);
      pen.fillStyle = colour("--quiet");
      pen.fillText(number(value), LEFT - 8, y);
    }
    if (index) line(pen, 0, Math.round(top) + 0.5, width, Math.round(top) + 0.5);
    pen.textAlign = "left";
    pen.textBaseline = "alphabetic";
    pen.fillStyle = colour(`--s${index}`);
    pen.fillText(one.name, LEFT, top + 12);
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, top, width - LEFT - RIGHT, tall);
    pen.clip();
    pen.beginPath();
    for (let at = 0; at < one.at.length; at++) pen.lineTo(place(one.at[at]), down(one.values[at]));
    pen.strokeStyle = colour(`--s${index}`);
    pen.lineWidth = 1.5;
    pen.stroke();
    if (one.at.length < 40) one.at.forEach((at, each) => pen.fillRect(place(at) - 2, down(one.values[each]) - 2, 4, 4));
    pen.lineWidth = 1;
    pen.restore();
  }

  cross(pen, lanes, { begin, end, width, height }) {
    if (this.pointer === null || this.pointer < LEFT) return say($("plot-at"), "\u00a0");
    const at = begin + ((this.pointer - LEFT) / (width - LEFT - RIGHT)) * (end - begin);
    pen.strokeStyle = colour("--quiet");
    line(pen, Math.round(this.pointer) + 0.5, 0, Math.round(this.pointer) + 0.5, height - AXIS);
    const values = lanes.map((one) => `${one.name} ${number(nearest(one, at))}`);
    say($("plot-at"), `${clock(at)}  ${values.join("  ")}`);
  }

  table(lanes) {
    for (const [name, { cells, swatch }] of this.rows) {
      const one = this.series.byName.get(name);
      [number(one.last), number(one.min), number(one.max), count(one.n)].forEach((text, index) => say(cells[index], text));
      swatch.style.background = this.chosen.has(name) ? colour(`--s${lanes.indexOf(one)}`) : "";
    }
    const told = lanes.map((one) => `${one.name} ${number(one.last)}`).join(", ");
    this.canvas.setAttribute("aria-label", told ? `Values over time: ${told}` : "Values over time: none chosen");
  }
}

function line(pen, x1, y1, x2, y2) {
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
}

function bounds(one, begin, end) {
  let [low, high] = [Infinity, -Infinity];
  one.at.forEach((at, index) => {
    if (at < begin || at > end) return;
    low = Math.min(low, one.values[index]);
    high = Math.max(high, one.values[index]);
  });
  if (low > high) [low, high] = [0, 1];
  const pad = low === high ? Math.abs(low) * 0.05 || 1 : (high - low) * 0.06;
  return [low - pad, high + pad];
}

function nearest(one, at) {
  let best = NaN;
  let far = Infinity;
  one.at.forEach((each, index) => {
    if (Math.abs(each - at) <= far) {
      far = Math.abs(each - at);
      best = one.values[index];
    }
  });
  return best;
}
