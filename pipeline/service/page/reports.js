// The panel of reports: a list of deploys, and the one that is chosen, rendered.

import { el, ms, when } from "./dom.js";
import { rendered } from "./markdown.js";

const MOST = 50;

export class Reports {
  /** `fetched(tx)` resolves to a report or null. */
  constructor(panel, fetched) {
    this.fetched = fetched;
    this.tx = "";
    this.list = el("ol", { class: "report-list" });
    this.body = el("article", { class: "report", tabIndex: -1 });
    panel.replaceChildren(el("div", { class: "report-frame" }, el("nav", { "aria-label": "Deploys" }, this.list), this.body));
    this.show([]);
  }

  show(rows) {
    const newest = rows.slice(-MOST).reverse();
    this.list.replaceChildren(...newest.map((row) => this.item(row)));
    if (!newest.length) {
      this.list.replaceChildren(el("li", { class: "hint" }, "No deploy of this device yet."));
      this.body.replaceChildren();
      this.tx = "";
    } else if (!newest.some((row) => row.tx === this.tx)) {
      this.tx = "";
      this.body.replaceChildren(el("p", { class: "hint" }, "Choose a deploy to read its report."));
    }
  }

  item(row) {
    const button = el("button", { class: "report-item", on: { click: () => this.open(row.tx) } },
      el("span", { class: `state ${row.category ? "bad" : "good"}` }),
      el("span", { class: "mono" }, when(row.at)),
      el("span", { class: "outcome" }, row.category || row.outcome.replaceAll("_", " ")),
      el("span", { class: "n quiet" }, ms(row.total_ms)));
    button.dataset.tx = row.tx;
    if (row.tx === this.tx) button.setAttribute("aria-current", "true");
    return el("li", {}, button);
  }

  async open(tx) {
    this.tx = tx;
    for (const button of this.list.querySelectorAll("button")) {
      if (button.dataset.tx === tx) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
    const found = await this.fetched(tx);
    if (this.tx !== tx) return;
    this.body.replaceChildren(...(found ? rendered(found.markdown) : [el("p", { class: "hint" }, `The report of ${tx} is not kept any more.`)]));
    this.body.scrollTop = 0;
    if (matchMedia("(max-width: 760px)").matches) this.body.focus();
  }
}
