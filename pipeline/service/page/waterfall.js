// One deploy in time, against its budget: a row per phase with where its time lies, what it took, its limit and margin;
// below it the workers of the build and the boot. The budget of a phase is the outline behind its bar.

import { el, ms, when } from "./dom.js";
import { ticks } from "./plot.js";

const WORDS = { ran: "done", "up-to-date": "up to date", failed: "failed", interrupted: "interrupted", "not-run": "not reached" };

export function waterfall({ report, timeline }) {
  const rows = phases(report, timeline);
  const longest = Math.max(1, report.budget.total.measured_ms ?? 0, ...rows.map((row) => row.at + Math.max(row.length, 0)));
  const head = el("tr", {}, ...["phase", "time", "took", "budget", "margin"].map((name, index) => el("th", { scope: "col", class: index > 1 ? "n" : "" }, name)));
  const parts = report.budget.parts ?? [];
  const body = rows.flatMap((row) => [phaseRow(row, longest), ...parts.filter((one) => one.phase === row.phase).map(partRow)]);
  body.push(totalRow(report.budget.total, longest));
  const bodies = [el("tbody", {}, ...body), el("tbody", { class: "lanes" }, axis(longest), ...(timeline ? lanes(timeline, longest) : []))];
  const made = [summary(report), el("div", { class: "scroll" }, el("table", { class: "waterfall" }, el("thead", {}, head), ...bodies))];
  const hint = timeline ? "Dashed: the budget of a phase. Faint: restored from the cache. The boot is on the device's clock." : "The event log of this deploy is not kept any more: the phases stand one after the other, without actions and boot.";
  made.push(el("p", { class: "hint" }, hint));
  if (report.failure) made.splice(1, 0, failure(report.failure));
  return made;
}

function phases(report, timeline) {
  const slices = new Map((timeline?.slices ?? []).filter((one) => one.lane === "stages").map((one) => [one.name, one]));
  const outcomes = new Map(report.stages.map((one) => [one.stage, one.outcome]));
  let at = 0;
  return report.budget.phases.map((row) => {
    const slice = slices.get(row.phase);
    const found = {
      ...row,
      at: slice ? slice.start_s * 1000 : at,
      length: slice ? slice.duration_s * 1000 : row.measured_ms ?? 0,
      outcome: outcomes.get(row.phase) ?? "",
    };
    at = found.at + found.length;
    return found;
  });
}

function phaseRow(row, longest) {
  const bad = row.outcome === "failed" || row.outcome === "interrupted";
  const bar = el("i", { class: `bar p-${row.phase}${bad ? " bad" : ""}` });
  place(bar, row.at, row.length, longest);
  const track = el("td", { class: "track" }, bar);
  if (row.limit_ms !== null) {
    const limit = el("i", { class: "limit" });
    place(limit, row.at, Math.min(row.limit_ms, longest - row.at), longest);
    limit.classList.toggle("open", row.at + row.limit_ms > longest);
    track.prepend(limit);
  }
  track.title = `${row.phase}: ${ms(row.length)} from ${ms(row.at)}${row.outcome ? `, ${WORDS[row.outcome] ?? row.outcome}` : ""}`;
  return el("tr", { class: row.verdict === "OVER" ? "over" : "" }, el("th", { scope: "row" }, row.phase), track, ...figures(row));
}

/** What was measured on its own within a phase. */
function partRow(part) {
  return el("tr", { class: "part" }, el("th", { scope: "row", colSpan: 2 }, part.part), el("td", { class: "n" }, ms(part.measured_ms)), el("td", { class: "n" }), el("td", { class: "n" }));
}

function totalRow(total, longest) {
  const bar = el("i", { class: "bar p-total" });
  place(bar, 0, total.measured_ms ?? 0, longest);
  return el("tr", { class: `total${total.verdict === "OVER" ? " over" : ""}` }, el("th", { scope: "row" }, "total"), el("td", { class: "track" }, bar), ...figures(total));
}

function figures(row) {
  const margin = row.margin_ms === null ? "–" : row.margin_ms < 0 ? `−${ms(-row.margin_ms)}` : ms(row.margin_ms);
  return [
    el("td", { class: "n" }, row.measured_ms === null ? "not measured" : ms(row.measured_ms)),
    el("td", { class: "n" }, row.limit_ms === null ? "–" : ms(row.limit_ms)),
    el("td", { class: "n" }, margin),
  ];
}

function place(bar, at, length, longest) {
  bar.style.left = `${(100 * at) / longest}%`;
  bar.style.width = `${Math.max(0, (100 * Math.min(length, longest - at)) / longest)}%`;
}

function axis(longest) {
  const marks = ticks(0, longest, 5).map((tick) => {
    const mark = el("span", {}, longest >= 2000 ? `${tick / 1000} s` : `${Math.round(tick)} ms`);
    mark.style.left = `${(100 * tick) / longest}%`;
    return mark;
  });
  return el("tr", { class: "axis", "aria-hidden": "true" }, el("td"), el("td", { class: "track" }, ...marks), el("td", { colSpan: 3 }));
}

function lanes({ slices, instants }, longest) {
  const found = new Map();
  for (const one of slices) if (one.lane !== "stages") found.set(one.lane, [...(found.get(one.lane) ?? []), one]);
  const names = [...found.keys()].sort((a, b) => Number(!a.startsWith("worker")) - Number(!b.startsWith("worker")) || a.localeCompare(b, "en", { numeric: true }));
  return names.map((name) => {
    const track = el("td", { class: "track" });
    for (const one of found.get(name)) {
      const bar = el("i", { class: `bar ${one.kind === "action" ? `p-${one.stage}` : "p-ttfb seam"} ${one.outcome}`, title: `${one.name}: ${ms(one.duration_s * 1000)}${one.outcome ? `, ${one.outcome}` : ""}` });
      place(bar, one.start_s * 1000, one.duration_s * 1000, longest);
      track.append(bar);
    }
    for (const one of instants.filter((each) => each.lane === name)) {
      const mark = el("i", { class: "mark", title: `${one.name.replaceAll("_", " ")}${one.note ? `: ${one.note}` : ""} at ${ms(one.at_s * 1000)}` });
      place(mark, one.at_s * 1000, 0, longest);
      track.append(mark);
    }
    const [many, took] = [found.get(name).length, found.get(name).reduce((sum, one) => sum + one.duration_s * 1000, 0)];
    const work = name.startsWith("worker");
    return el("tr", {}, el("th", { scope: "row" }, name.replace(" (device time)", "")), track,
      el("td", { class: "n" }, ms(Math.round(took))), el("td", { class: "n quiet", colSpan: 2 }, work ? `${many} action${many === 1 ? "" : "s"}` : "to the first JSON-RPC byte"));
  });
}

function summary(report) {
  const failed = report.failure !== null;
  const facts = [
    [report.outcome ?? "unknown", failed ? "bad" : "good"],
    [report.transaction_id, "mono"],
    [`${when(report.started_at)}`, ""],
    [`profile ${report.profile}`, ""],
    [report.budget.bottleneck ? `longest: ${report.budget.bottleneck}` : "", ""],
    [`${report.totals.compiled ?? 0} compiled, ${report.totals.bytes_written} bytes written`, ""],
  ];
  return el("p", { class: "facts" }, ...facts.filter(([text]) => text).map(([text, look]) => el("span", { class: look }, text)));
}

export function failure(one) {
  const box = el("div", { class: "failure" }, el("strong", {}, `${one.where ? `${one.where}: ` : ""}${one.message}`), el("p", {}, one.hint));
  if (one.detail) box.append(el("pre", { tabIndex: 0 }, one.detail));
  return box;
}
