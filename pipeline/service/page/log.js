// The log of one device: a ring of lines, and a screen that draws only the rows that can be seen.
// Invariants: at most MOST lines are kept, whatever comes; a row that is looked at stays where it is while others come
// and old ones go, unless the newest are followed.

import { $, clock, count, el, paced, say } from "./dom.js";
import { pieces, plain } from "./ansi.js";

export const MOST = 10000;
const SLACK = 500;
const ROW = 20;
const MARGIN = 10;
const COUNT_MS = 500;

/** A test of a line by what was typed: `/regex/` or text in any case. Null for nothing; undefined for no regex. */
export function matcher(typed) {
  if (!typed) return null;
  const regex = /^\/(.+)\/(i?)$/.exec(typed);
  try {
    return regex ? new RegExp(regex[1], `g${regex[2]}u`) : new RegExp(typed.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "giu");
  } catch {
    return undefined;
  }
}

const fits = (test, text) => {
  test.lastIndex = 0;
  return test.test(text);
};

export class Log {
  /** `heard(line)` gets each line with its plain text, for the plotter. */
  constructor(heard) {
    this.heard = heard;
    this.screen = $("screen");
    this.paper = $("paper");
    this.draw = paced(() => this.render());
    this.rows = new Map();
    this.filter = this.search = null;
    this.followed = true;
    this.paused = false;
    this.empty();
    this.listen();
  }

  empty() {
    this.lines = [];
    this.first = 0; // number of lines[0]
    this.shown = []; // numbers of the lines that pass the filter
    this.begun = null;
    this.lost = 0;
    this.old = 0;
    this.held = null; // what is shown while paused
    this.hit = -1;
    this.unread = 0;
    this.forget();
    this.draw();
  }

  listen() {
    this.screen.addEventListener("scroll", () => {
      const rest = this.screen.scrollHeight - this.screen.scrollTop - this.screen.clientHeight;
      this.followed = rest < ROW;
      if (this.followed) this.unread = 0;
      this.draw();
    }, { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.screen);
    $("filter").addEventListener("input", () => this.refilter());
    $("search").addEventListener("input", () => this.research());
    $("search").addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.jump(event.shiftKey ? -1 : 1);
    });
    $("search-on").addEventListener("click", () => this.jump(1));
    $("search-back").addEventListener("click", () => this.jump(-1));
    $("pause").addEventListener("click", () => this.pause(!this.paused));
    $("clear").addEventListener("click", () => this.empty());
    $("copy").addEventListener("click", () => this.copy());
    $("newest").addEventListener("click", () => {
      this.pause(false);
      this.follow();
    });
  }

  /** New lines, the line that has begun (undefined: as before), and how many the service dropped in all. */
  add(lines, begun, dropped) {
    for (const line of lines) this.push(line);
    if (begun !== undefined) this.begun = begun ? this.made({ x: begun, t: Date.now(), begun: true }) : null;
    this.lost = dropped;
    if (this.lines.length > MOST + SLACK) this.trim(this.lines.length - MOST);
    if (!this.followed || this.paused) this.unread += lines.length;
    this.draw();
  }

  made(line) {
    line.parts = pieces(line.note === undefined ? line.x : line.note);
    line.plain = plain(line.parts);
    return line;
  }

  push(line) {
    this.made(line);
    const number = this.first + this.lines.length;
    this.lines.push(line);
    if (this.passes(line)) this.shown.push(number);
    if (line.note === undefined) this.heard(line);
  }

  passes(line) {
    return !this.filter || fits(this.filter, line.plain);
  }

  trim(many) {
    this.lines.splice(0, many);
    this.first += many;
    this.old += many;
    let gone = 0;
    while (gone < this.shown.length && this.shown[gone] < this.first) gone += 1;
    this.shown.splice(0, gone);
    if (!this.paused && !this.followed) this.screen.scrollTop -= gone * ROW;
    this.forget();
  }

  // --- what is shown ---------------------------------------------------------------------------

  /** The lines as they are drawn: those of now, or of when the pause began. */
  view() {
    if (this.held) return this.held;
    const lines = this.shown.map((number) => this.lines[number - this.first]);
    if (this.begun && this.passes(this.begun)) lines.push(this.begun);
    return lines;
  }

  get length() {
    if (this.held) return this.held.length;
    return this.shown.length + (this.begun && this.passes(this.begun) ? 1 : 0);
  }

  at(index) {
    if (this.held) return this.held[index];
    return index < this.shown.length ? this.lines[this.shown[index] - this.first] : this.begun;
  }

  follow() {
    this.followed = true;
    this.unread = 0;
    this.draw();
  }

  pause(on) {
    this.held = on ? this.view() : null;
    this.paused = on;
    if (!on) this.unread = 0;
    $("pause").setAttribute("aria-pressed", String(on));
    say($("pause"), on ? "Resume" : "Pause");
    this.forget();
    this.draw();
  }

  forget() {
    this.paper.replaceChildren();
    this.rows.clear();
  }

  render() {
    this.counts();
    const length = this.length;
    this.paper.style.height = `${length * ROW}px`;
    if (this.screen.clientHeight === 0) return;
    if (this.followed && !this.paused) this.screen.scrollTop = length * ROW;
    const from = Math.max(0, Math.floor(this.screen.scrollTop / ROW) - MARGIN);
    const to = Math.min(length, Math.ceil((this.screen.scrollTop + this.screen.clientHeight) / ROW) + MARGIN);
    const wanted = new Map();
    for (let index = from; index < to; index++) wanted.set(this.at(index), index);
    for (const [line, row] of this.rows) {
      if (!wanted.has(line)) {
        row.remove();
        this.rows.delete(line);
      }
    }
    for (const [line, index] of wanted) {
      let row = this.rows.get(line);
      if (!row) {
        row = this.row(line);
        this.rows.set(line, row);
        this.paper.append(row);
      }
      row.style.top = `${index * ROW}px`;
      row.classList.toggle("hit", index === this.hit);
    }
  }

  row(line) {
    const row = el("div", { class: line.note === undefined ? "row" : "row note" });
    row.append(el("time", {}, line.t ? clock(line.t) : ""));
    const text = el("span", { class: "text" });
    if (line.note !== undefined) text.append("— ");
    let at = 0;
    const marks = this.search ? ranges(this.search, line.plain) : [];
    for (const part of line.parts) {
      cut(text, part, at, marks);
      at += part.text.length;
    }
    if (line.cut) text.append(el("span", { class: "cut" }, ` … ${line.cut > 1 ? `${count(line.cut)} characters` : "the rest"} not shown`));
    row.append(text);
    return row;
  }

  counts() {
    // Lines that come may match too; to look through all of them for each would be much.
    if (this.search && this.hit < 0 && performance.now() - this.counted > COUNT_MS) this.count();
    const all = this.lines.length;
    const shown = this.filter ? `${count(this.shown.length)} of ${count(all)} lines` : `${count(all)} line${all === 1 ? "" : "s"}`;
    say($("line-count"), shown);
    const drops = [];
    if (this.lost) drops.push(`${count(this.lost)} dropped: this page was too slow`);
    if (this.old) drops.push(`${count(this.old)} older ones let go`);
    if (this.missed) drops.push(`${count(this.missed)} bytes lost before the service`);
    say($("drop-count"), drops.join(" · ") || "none dropped");
    const away = (this.paused || !this.followed) && this.length > 0;
    $("newest").hidden = !away;
    if (away) say($("newest"), this.unread ? `${count(this.unread)} new ↓` : "Newest ↓");
  }

  // --- search and filter -----------------------------------------------------------------------

  refilter() {
    const test = matcher($("filter").value);
    $("filter").setAttribute("aria-invalid", String(test === undefined));
    if (test === undefined) return;
    this.filter = test;
    this.shown = [];
    this.lines.forEach((line, index) => this.passes(line) && this.shown.push(this.first + index));
    if (this.held) this.held = this.held && this.lines.filter((line) => this.passes(line));
    this.research();
  }

  research() {
    const test = matcher($("search").value);
    $("search").setAttribute("aria-invalid", String(test === undefined));
    if (test === undefined) return;
    this.search = test;
    this.hit = -1;
    this.forget();
    this.count();
    this.draw();
  }

  count() {
    this.counted = performance.now();
    say($("search-count"), this.search ? `${count(this.hits().length)} found` : "");
  }

  hits() {
    if (!this.search) return [];
    const found = [];
    this.view().forEach((line, index) => fits(this.search, line.plain) && found.push(index));
    return found;
  }

  jump(direction) {
    const found = this.hits();
    if (!found.length) return say($("search-count"), this.search ? "0 found" : "");
    const from = this.hit >= 0 ? this.hit : Math.floor(this.screen.scrollTop / ROW) - (direction > 0 ? 1 : 0);
    const next = direction > 0 ? found.find((one) => one > from) ?? found[0] : found.findLast((one) => one < from) ?? found.at(-1);
    this.hit = next;
    this.followed = false;
    this.screen.scrollTop = next * ROW - this.screen.clientHeight / 2;
    say($("search-count"), `${count(found.indexOf(next) + 1)} of ${count(found.length)}`);
    this.draw();
  }

  async copy() {
    const text = this.view().map((line) => `${line.t ? clock(line.t) : ""} ${line.note === undefined ? "" : "-- "}${line.plain}`).join("\n");
    try {
      await navigator.clipboard.writeText(`${text}\n`);
      say($("copy"), "Copied");
    } catch {
      say($("copy"), "Not allowed");
    }
    setTimeout(() => say($("copy"), "Copy"), 1500);
  }
}

/** Where the test matches, as [begin, end]; empty matches are none. */
function ranges(test, text) {
  const found = [];
  test.lastIndex = 0;
  for (const match of text.matchAll(test)) {
    if (match[0]) found.push([match.index, match.index + match[0].length]);
    if (found.length >= 100) break;
  }
  return found;
}

/** Append one piece, cut where marks begin and end. `at`: its place in the line. */
function cut(parent, part, at, marks) {
  const end = at + part.text.length;
  let here = at;
  for (const [from, to] of marks) {
    if (to <= here || from >= end) continue;
    if (from > here) parent.append(styled(part.text.slice(here - at, from - at), part.look));
    const stop = Math.min(to, end);
    parent.append(el("mark", {}, styled(part.text.slice(Math.max(from, here) - at, stop - at), part.look)));
    here = stop;
  }
  if (here < end) parent.append(styled(part.text.slice(here - at), part.look));
}

const styled = (text, look) => (look ? el("span", { class: look }, text) : document.createTextNode(text));
