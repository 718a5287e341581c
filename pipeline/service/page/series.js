// Numbers in a log, as series: numeric fields of JSON lines, and `name=value` pairs.
// Pure: text in, values out. Invariants: at most MOST_SERIES names and MOST_POINTS points of each are kept; what came too
// late for a place is counted.

export const MOST_SERIES = 64;
export const MOST_POINTS = 4000;
const MOST_FIELDS = 32;
const DEEPEST = 5;
const PAIR = /(?<![\w.])([A-Za-z_][\w.\-/]{0,39})=(-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)(?![\w.])/g;
const OF_JSONRPC = new Set(["jsonrpc", "id"]);

/** [[name, value], ...] of one line without colours. */
export function numbers(text) {
  const found = [];
  const start = text.search(/\S/);
  if (text[start] === "{") {
    try {
      walk(JSON.parse(text), "", 0, found);
      return found;
    } catch {
      // half a message, or something that only begins like one
    }
  }
  for (const match of text.matchAll(PAIR)) {
    const value = Number(match[2]);
    if (Number.isFinite(value)) found.push([match[1], value]);
    if (found.length >= MOST_FIELDS) break;
  }
  return found;
}

function walk(value, name, depth, found) {
  if (found.length >= MOST_FIELDS || depth > DEEPEST) return;
  if (typeof value === "number" && Number.isFinite(value)) found.push([name.slice(0, 60), value]);
  else if (Array.isArray(value)) value.slice(0, 8).forEach((one, index) => walk(one, `${name}[${label(one) ?? index}]`, depth + 1, found));
  else if (value && typeof value === "object") {
    for (const [key, one] of Object.entries(value)) {
      if (depth === 0 && OF_JSONRPC.has(key)) continue;
      walk(one, name ? `${name}.${key}` : key, depth + 1, found);
    }
  }
}

/** A list of named things is told by their names, which stay when places move. */
const label = (one) => (one && typeof one.name === "string" ? one.name.slice(0, 24) : undefined);

export class Series {
  constructor() {
    this.byName = new Map();
    this.refused = new Set();
  }

  /** `at`: ms since 1970. True when there is a new name. */
  add(at, text) {
    let fresh = false;
    for (const [name, value] of numbers(text)) {
      let one = this.byName.get(name);
      if (!one) {
        if (this.byName.size >= MOST_SERIES) {
          if (this.refused.size < 1000) this.refused.add(name);
          continue;
        }
        one = { name, at: [], values: [], n: 0, min: Infinity, max: -Infinity, last: 0 };
        this.byName.set(name, one);
        fresh = true;
      }
      one.at.push(at);
      one.values.push(value);
      one.n += 1;
      one.last = value;
      one.min = Math.min(one.min, value);
      one.max = Math.max(one.max, value);
      if (one.at.length > MOST_POINTS * 1.25) {
        one.at.splice(0, one.at.length - MOST_POINTS);
        one.values.splice(0, one.values.length - MOST_POINTS);
      }
    }
    return fresh;
  }
}
