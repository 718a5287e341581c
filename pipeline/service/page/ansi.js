// A line of a terminal as pieces of text with a look. Colours and weights are kept; everything else that could steer a
// terminal (cursor, titles, clipboard by OSC 52, links) is taken out; what cannot be seen is shown by its escape.
// Pure: strings in, values out. Each piece is `{text, look}`; joined texts are what a search sees.

// CSI; OSC, DCS, SOS, PM and APC up to their end (or that of the line); other escapes; each in linear time.
const SEQUENCE = /\x1b\[[0-?]*[ -/]*[@-~]|\x9b[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)?|\x1b[ -/]*[0-~]?/g;
const COLOURS = /^(?:\x1b\[|\x9b)([0-9;:]*)m$/;
// Controls, and characters that change the order or the place of others, or take no place.
const UNSEEN = /[\x00-\x08\x0a-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\u{e0000}-\u{e0fff}]/gu;
const MOST_MARKS = /(\p{M}{4})\p{M}+/gu;

function escaped(character) {
  const code = character.codePointAt(0).toString(16);
  return code.length <= 2 ? `\\x${code.padStart(2, "0")}` : `\\u${code.padStart(4, "0")}`;
}

/** In characters that can be seen, each at its place. */
export function visible(text) {
  if (!/[^\x20-\x7e]/.test(text)) return text;
  return text.replaceAll(UNSEEN, escaped).replaceAll(MOST_MARKS, "$1…");
}

export function pieces(line) {
  if (!line.includes("\x1b") && !/[\x80-\x9f]/.test(line)) return [{ text: visible(line), look: "" }];
  const found = [];
  let look = {};
  let at = 0;
  const push = (text) => {
    if (text) found.push({ text: visible(text), look: classes(look) });
  };
  for (const match of line.matchAll(SEQUENCE)) {
    push(line.slice(at, match.index));
    at = match.index + match[0].length;
    const colours = COLOURS.exec(match[0]);
    if (colours) look = changed(look, colours[1]);
  }
  push(line.slice(at));
  return found.length ? found : [{ text: "", look: "" }];
}

export const plain = (found) => (found.length === 1 ? found[0].text : found.map((one) => one.text).join(""));

const classes = (look) =>
  [look.fore === undefined ? "" : `a${look.fore}`, look.bold && "bold", look.dim && "dim", look.italic && "italic", look.under && "under", look.inverse && "inverse"].filter(Boolean).join(" ");

// Select Graphic Rendition (ECMA-48 8.3.117; 90-97 as xterm). Backgrounds and `conceal` are not followed: a device must
// not be able to hide what it says.
function changed(look, codes) {
  const next = { ...look };
  const words = codes.split(/[;:]/).slice(0, 32).map(Number);
  for (let at = 0; at < words.length; at++) {
    const code = words[at];
    if (code === 0) for (const key of Object.keys(next)) delete next[key];
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 3) next.italic = true;
    else if (code === 4) next.under = true;
    else if (code === 7) next.inverse = true;
    else if (code === 22) next.bold = next.dim = false;
    else if (code === 23) next.italic = false;
    else if (code === 24) next.under = false;
    else if (code === 27) next.inverse = false;
    else if (code >= 30 && code <= 37) next.fore = code - 30;
    else if (code >= 90 && code <= 97) next.fore = code - 82;
    else if (code === 39) delete next.fore;
    else if (code === 38 || code === 48) {
      const kind = words[at + 1];
      if (kind === 5 && code === 38 && words[at + 2] < 16) next.fore = words[at + 2];
      at += kind === 5 ? 2 : kind === 2 ? 4 : 1;
    }
  }
  return next;
}
