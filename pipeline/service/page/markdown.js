// Markdown as our reports use it, made into elements: headings, lists, tables, quotes, fenced and inline code, emphasis.
// Invariant: every text goes through a text node, and no address is ever followed.

import { el } from "./dom.js";

const BLOCKS = [
  [/^(`{3,}|~{3,})/, fence],
  [/^#{1,6} /, heading],
  [/^\s*[-*] /, list],
  [/^\|/, table],
  [/^>/, quote],
];

export function rendered(text) {
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  const made = [];
  while (lines.length) {
    const [first] = lines;
    if (!first.trim()) lines.shift();
    else made.push((BLOCKS.find(([test]) => test.test(first)) ?? [null, paragraph])[1](lines));
  }
  return made;
}

function while_(lines, test) {
  const taken = [];
  while (lines.length && test(lines[0])) taken.push(lines.shift());
  return taken;
}

function fence(lines) {
  const mark = /^(`{3,}|~{3,})/.exec(lines.shift())[1];
  const taken = while_(lines, (line) => !line.startsWith(mark));
  lines.shift();
  return el("pre", { tabIndex: 0 }, taken.join("\n"));
}

function heading(lines) {
  const [, marks, text] = /^(#{1,6}) (.*)$/.exec(lines.shift());
  return el(`h${Math.min(6, marks.length + 2)}`, {}, ...inline(text));
}

function list(lines) {
  const items = while_(lines, (line) => /^\s*[-*] /.test(line));
  const pairs = items.map((line) => /^\s*[-*] ([\w.\-/ ]+): (`.*)$/.exec(line));
  if (pairs.every(Boolean)) {
    return el("dl", { class: "pairs" }, ...pairs.flatMap(([, name, value]) => [el("dt", {}, name), el("dd", {}, ...inline(value))]));
  }
  return el("ul", {}, ...items.map((line) => el("li", {}, ...inline(line.replace(/^\s*[-*] /, "")))));
}

function table(lines) {
  const rows = while_(lines, (line) => line.startsWith("|")).map(cells);
  const body = rows.filter((row) => !row.every((cell) => /^:?-+:?$/.test(cell)));
  const [head, ...rest] = body;
  const number = (cell) => (/^-?[\d.,]+( \w+)?$/.test(cell) ? "n" : "");
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ...head.map((cell) => el("th", { scope: "col" }, ...inline(cell))))),
    el("tbody", {}, ...rest.map((row) => el("tr", {}, ...row.map((cell) => el("td", { class: number(cell) }, ...inline(cell))))))));
}

const cells = (line) => line.replace(/^\|/, "").replace(/\|\s*$/, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));

function quote(lines) {
  return el("blockquote", {}, ...rendered(while_(lines, (line) => line.startsWith(">")).map((line) => line.replace(/^> ?/, "")).join("\n")));
}

function paragraph(lines) {
  const taken = [lines.shift(), ...while_(lines, (line) => line.trim() && !BLOCKS.some(([test]) => test.test(line)))];
  return el("p", {}, ...inline(taken.join(" ")));
}

/** Code spans as in CommonMark: as many backticks at the end as at the begin. Links are shown by their words. */
function inline(text) {
  const found = [];
  let at = 0;
  for (const match of text.matchAll(/(`+)(.+?)\1(?!`)|\*\*([^*]+)\*\*|\[([^\]]+)\]\((?:[^()]|\([^()]*\))*\)|\\([!-/:-@[-`{-~])/g)) {
    found.push(text.slice(at, match.index));
    at = match.index + match[0].length;
    if (match[1]) found.push(el("code", {}, match[2].replace(/^ (.+) $/, "$1")));
    else if (match[3]) found.push(el("strong", {}, match[3]));
    else found.push(match[4] ?? match[5]);
  }
  found.push(text.slice(at));
  return found.filter((one) => one !== "");
}
