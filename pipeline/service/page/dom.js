// Elements by name, and small words for numbers and times. All foreign text goes through textContent.

export const $ = (id) => document.getElementById(id);

/** An element: `props` are properties, but `class`, `data` and `on` (listeners); strings become text. */
export function el(name, props = {}, ...children) {
  const made = document.createElement(name);
  fill(made, props);
  made.append(...children);
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element: `props` are attributes. */
export function svg(name, props = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(props)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function fill(made, props) {
  for (const [key, value] of Object.entries(props)) {
    if (key === "class") made.className = value;
    else if (key === "data") Object.assign(made.dataset, value);
    else if (key === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
}

/** Set a text only where it is another one: a screen reader is told, and the layout asked, once. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** `0.4 ms`, `320 ms`, `4.2 s`; the same as in reports. */
export function ms(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 10000) return `${(value / 1000).toFixed(1)} s`;
  return value >= 10 || Number.isInteger(value) ? `${Math.round(value)} ms` : `${value.toFixed(1)} ms`;
}

export function bytes(value) {
  if (value >= 1 << 20) return `${(value / (1 << 20)).toFixed(2)} MiB`;
  return value >= 1 << 10 ? `${(value / (1 << 10)).toFixed(1)} KiB` : `${value} B`;
}

export const count = (value) => value.toLocaleString("en");

const two = (value) => String(value).padStart(2, "0");

/** `12:00:00.000` of ms since 1970, local. */
export function clock(at) {
  const date = new Date(at);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** `11-28 12:00` of an instant, local. */
export function when(instant) {
  const date = new Date(instant);
  if (Number.isNaN(date.getTime())) return "";
  return `${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

/** A value of the style sheet. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Once per picture, however often it is asked for. */
export function paced(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}
