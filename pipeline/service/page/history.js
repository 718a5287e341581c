// The panel of the past: total and each phase with p50 and p90, and the sizes of the images.

import { bytes, count, el, ms, say, when } from "./dom.js";
import { spark, trend } from "./trend.js";

const SMALL = 60;

export class History {
  constructor(panel) {
    this.panel = panel;
    this.phase = "total";
    this.image = "";
    this.data = null;
    this.title = el("h3", {}, "Total time of each deploy");
    this.chart = el("div", { class: "chart-place" });
    this.table = el("div", { class: "scroll" });
    this.sizeTitle = el("h3", {}, "Size of the images");
    this.sizeChart = el("div", { class: "chart-place" });
    this.sizeTable = el("div", { class: "scroll" });
    const legend = el("p", { class: "hint" }, el("i", { class: "key warm" }), "nothing to build ", el("i", { class: "key built" }), "built or written ", el("i", { class: "key failed" }), "failed. p50 and p90 are of complete deploys on this machine.");
    panel.replaceChildren(this.title, this.chart, legend, this.table, this.sizeTitle, this.sizeChart, this.sizeTable);
    this.show(null);
  }

  show(data) {
    this.data = data;
    this.times();
    this.sizes();
  }

  times() {
    const rows = this.data?.rows ?? [];
    const of = (row) => (this.phase === "total" ? row.total_ms : row.phases[this.phase] ?? null);
    const points = rows.filter((row) => of(row) !== null).map((row) => ({
      label: when(row.at),
      value: of(row),
      kind: row.category ? "failed" : row.warm ? "warm" : "built",
      title: `${when(row.at)}: ${ms(of(row))}, ${row.category || row.outcome}`,
    }));
    const found = this.data?.statistics[this.phase];
    const lines = [
      { name: "p50", value: found?.p50, css: "p50" },
      { name: "p90", value: found?.p90, css: "p90" },
      { name: "budget", value: this.data?.limits_ms[this.phase], css: "limit" },
    ];
    say(this.title, this.phase === "total" ? "Total time of each deploy" : `Time of ${this.phase} in each deploy`);
    this.chart.replaceChildren(trend(points, lines, ms, `${this.title.textContent}, ${points.length} deploys`));
    this.table.replaceChildren(this.phases(rows));
  }

  phases(rows) {
    const names = ["total", ...(this.data?.phases ?? ["startup", "dispatch", "fingerprint", "compile", "link", "verify-flash", "reflash", "reattach", "ttfb"])];
    const body = names.map((name) => {
      const values = rows.filter((row) => row.usual).map((row) => (name === "total" ? row.total_ms : row.phases[name])).filter((value) => value !== undefined && value !== null).slice(-SMALL);
      const found = this.data?.statistics[name];
      const limit = this.data?.limits_ms[name];
      const pick = el("button", { class: "link", on: { click: () => this.pick(name) } }, name);
      pick.setAttribute("aria-pressed", String(name === this.phase));
      return el("tr", { class: name === this.phase ? "picked" : "" },
        el("th", { scope: "row" }, pick),
        el("td", {}, spark(values, `the last ${values.length} of ${name}`)),
        el("td", { class: "n" }, ms(found?.p50)),
        el("td", { class: `n${limit !== undefined && found?.p90 > limit ? " bad" : ""}` }, ms(found?.p90)),
        el("td", { class: "n" }, ms(limit)),
        el("td", { class: "n" }, found ? count(found.n) : "–"));
    });
    return el("table", { class: "phases" }, head(["phase", `last ${SMALL}`, "p50", "p90", "budget", "n"], 2), el("tbody", {}, ...body));
  }

  pick(name) {
    this.phase = name;
    this.times();
    [...this.table.querySelectorAll("button")].find((one) => one.textContent === name)?.focus();
  }

  sizes() {
    const rows = this.data?.sizes ?? [];
    const names = [...new Set(rows.flatMap((row) => Object.keys(row.sizes)))];
    const last = rows.at(-1)?.sizes ?? {};
    names.sort((a, b) => (last[b] ?? 0) - (last[a] ?? 0));
    if (!names.includes(this.image)) this.image = names[0] ?? "";
    const points = rows.filter((row) => this.image in row.sizes).map((row) => ({
      label: when(row.at),
      value: row.sizes[this.image],
      kind: "size",
      title: `${when(row.at)}: ${count(row.sizes[this.image])} bytes`,
    }));
    say(this.sizeTitle, this.image ? `Size of ${this.image} in each deploy` : "Size of the images");
    this.sizeChart.replaceChildren(trend(points, [], bytes, this.sizeTitle.textContent));
    const body = names.map((name) => this.imageRow(name, rows));
    this.sizeTable.replaceChildren(el("table", { class: "phases" }, head(["image", `last ${SMALL}`, "now", "before", "change"], 2), el("tbody", {}, ...body)));
  }

  imageRow(name, rows) {
    const values = rows.map((row) => row.sizes[name]).filter((value) => value !== undefined);
    const now = values.at(-1);
    const before = values.findLast((value) => value !== now) ?? now;
    const pick = el("button", { class: "link", on: { click: () => this.pickImage(name) } }, name);
    pick.setAttribute("aria-pressed", String(name === this.image));
    const moved = now - before;
    return el("tr", { class: name === this.image ? "picked" : "" },
      el("th", { scope: "row" }, pick),
      el("td", {}, spark(values, `the last ${values.length} sizes of ${name}`)),
      el("td", { class: "n" }, bytes(now)),
      el("td", { class: "n" }, bytes(before)),
      el("td", { class: "n" }, moved ? `${moved > 0 ? "+" : "−"}${bytes(Math.abs(moved))}` : "none"));
  }

  pickImage(name) {
    this.image = name;
    this.sizes();
    [...this.sizeTable.querySelectorAll("button")].find((one) => one.textContent === name)?.focus();
  }
}

function head(names, numbersFrom) {
  return el("thead", {}, el("tr", {}, ...names.map((name, index) => el("th", { scope: "col", class: index >= numbersFrom ? "n" : "" }, name))));
}
