// The page: one link to the service, one device that is looked at, five views of it.

import { $, count, el, say } from "./dom.js";
import { Devices, head } from "./devices.js";
import { History } from "./history.js";
import { Link } from "./link.js";
import { Log } from "./log.js";
import { Plot } from "./plot.js";
import { Reports } from "./reports.js";
import { Run } from "./run.js";
import { failure, waterfall } from "./waterfall.js";

const TABS = ["log", "plot", "last", "history", "reports"];
const TOAST_MS = 8000;
const REFUSED = { host: "foreign host", origin: "foreign origin", site: "foreign site", token: "no token" };

class Page {
  constructor() {
    // The token has done its work, and must not stand in the history.
    const [key, tab] = location.hash.slice(1).split("/");
    this.key = key || "";
    this.tab = TABS.includes(tab) ? tab : "log";
    history.replaceState(null, "", `${location.pathname}${location.hash}`);
    this.devices = [];
    this.told = false;
    this.deploys = new Map(); // key of the device -> state of its newest deploy
    this.past = new Map(); // key -> history
    this.reports = new Map(); // tx -> report
    this.cards = new Devices((chosen) => this.choose(chosen));
    this.plot = new Plot();
    this.log = new Log((line) => this.plot.hear(line));
    this.run = new Run();
    this.history = new History($("history"));
    this.list = new Reports($("reports"), (tx) => this.report(tx));
    this.shown = "";
    this.tabs();
    this.buttons();
    this.render();
    this.link = new Link((message) => this.hear(message), (state, text) => this.linkState(state, text));
    this.link.opened = () => this.watch();
  }

  get device() {
    return this.devices.find((one) => one.key === this.key);
  }

  // --- what comes ------------------------------------------------------------------------------

  hear(message) {
    if (message.is === "devices") this.heardDevices(message);
    else if (message.is === "lines" && message.device === this.key) this.log.add(message.lines, message.begun, message.dropped);
    else if (message.is === "watching" && message.device === this.key) this.begin();
    else if (message.is === "deploy") this.heardDeploy(message);
    else if (message.is === "reports") this.fetchPast(message.device);
  }

  heardDevices(message) {
    const before = this.device;
    this.devices = message.devices;
    this.told = true;
    const total = Object.values(message.refused).reduce((sum, one) => sum + one, 0);
    say($("refused"), total ? `${count(total)} requests refused` : "");
    $("refused").title = Object.entries(message.refused).map(([name, many]) => `${REFUSED[name] ?? name}: ${many}`).join(", ");
    if (!this.device && this.devices.length) this.choose(this.devices[0].key);
    else if (!before && this.device) this.choose(this.key);
    this.log.missed = this.device?.bytes_dropped ?? 0;
    this.render();
  }

  heardDeploy(message) {
    const known = this.deploys.get(message.key);
    if (known && known.tx > message.tx && known.tx !== message.tx) return;
    this.deploys.set(message.key, message);
    this.render();
  }

  async fetchPast(key) {
    const device = this.devices.find((one) => one.key === key);
    if (!device) return;
    const found = await this.get(`api/${device.project}/${key}/history`);
    if (!found) return;
    this.past.set(key, found);
    if (key !== this.key) return;
    this.render();
    this.history.show(found);
    this.list.show(found.rows);
    this.showLast();
  }

  async report(tx) {
    const device = this.device;
    if (!this.reports.has(tx) && device) {
      const found = await this.get(`api/${device.project}/reports/${tx}`);
      if (!found) return null;
      if (this.reports.size > 20) this.reports.delete(this.reports.keys().next().value);
      this.reports.set(tx, found);
    }
    return this.reports.get(tx) ?? null;
  }

  async get(address) {
    try {
      const answer = await fetch(address);
      return answer.ok ? await answer.json() : null;
    } catch {
      return null; // the link says that the service is away
    }
  }

  // --- what is shown ---------------------------------------------------------------------------

  choose(key) {
    this.key = key;
    this.shown = "";
    this.begin();
    this.watch();
    this.history.show(this.past.get(key) ?? null);
    this.list.show(this.past.get(key)?.rows ?? []);
    $("last").replaceChildren();
    this.fetchPast(key);
    this.place();
    this.render();
  }

  begin() {
    this.log.empty();
    this.plot.empty();
  }

  watch() {
    if (this.device) this.link.ask({ do: "watch", device: this.key, since: $("since").value }).then((one) => this.complain(one));
  }

  render() {
    this.cards.show(this.told ? this.devices : null, this.key);
    head(this.device);
    const past = this.past.get(this.key);
    const last = past?.rows.at(-1) ?? null;
    this.run.show(this.newest(last), past && last, this.device ? this.device.cannot_deploy : undefined);
    document.title = this.device ? `${this.device.name} · Hotplate` : "Hotplate";
  }

  /** The deploy that was seen, unless the history has a later one. */
  newest(last) {
    const seen = this.deploys.get(this.key);
    return seen && (seen.running || !last || seen.tx >= last.tx) ? seen : null;
  }

  async showLast() {
    if (this.tab !== "last") return;
    const row = this.past.get(this.key)?.rows.at(-1);
    if (!row) {
      $("last").replaceChildren(el("p", { class: "hint" }, "No deploy of this device yet."));
      return;
    }
    if (this.shown === row.tx) return;
    const found = await this.report(row.tx);
    if (row.tx !== this.past.get(this.key)?.rows.at(-1)?.tx) return;
    this.shown = row.tx;
    $("last").replaceChildren(...(found ? waterfall(found) : [el("p", { class: "hint" }, `The report of ${row.tx} is not kept any more.`)]));
  }

  linkState(state, text) {
    $("link").dataset.state = state;
    say($("link"), text);
    document.body.classList.toggle("away", state !== "good");
  }

  complain(problem) {
    if (!problem) return;
    $("toast").replaceChildren(failure({ ...problem, detail: "" }));
    clearTimeout(this.toast);
    this.toast = setTimeout(() => $("toast").replaceChildren(), TOAST_MS);
  }

  place() {
    history.replaceState(null, "", `${location.pathname}#${this.key}/${this.tab}`);
  }

  // --- what is pressed -------------------------------------------------------------------------

  tabs() {
    for (const name of TABS) $(`tab-${name}`).addEventListener("click", () => this.view(name));
    document.querySelector(".tabs").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const at = TABS.indexOf(this.tab);
      const next = step ? TABS[(at + step + TABS.length) % TABS.length] : { Home: TABS[0], End: TABS.at(-1) }[event.key];
      if (!next) return;
      event.preventDefault();
      this.view(next);
      $(`tab-${next}`).focus();
    });
    this.view(this.tab);
  }

  view(name) {
    this.tab = name;
    for (const one of TABS) {
      $(one).hidden = one !== name;
      $(`tab-${one}`).setAttribute("aria-selected", String(one === name));
      $(`tab-${one}`).tabIndex = one === name ? 0 : -1;
    }
    this.place();
    if (name === "log") this.log.draw();
    if (name === "last") this.showLast();
  }

  buttons() {
    const press = (id, message) => $(id).addEventListener("click", async () => this.complain(await this.link.ask({ device: this.key, ...message() })));
    press("deploy", () => ({ do: "deploy" }));
    press("stop", () => ({ do: "stop", tx: this.deploys.get(this.key)?.tx ?? "" }));
    press("reset", () => ({ do: "reset" }));
    press("release", () => ({ do: this.device?.state === "closed" ? "open" : "release" }));
    $("since").addEventListener("change", () => this.watch());
    $("typing").addEventListener("submit", async (event) => {
      event.preventDefault();
      const text = $("typed").value + $("line-end").value;
      if (!text) return;
      const problem = await this.link.ask({ do: "send", device: this.key, text });
      this.complain(problem);
      if (!problem) $("typed").value = "";
    });
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest("input, select, textarea");
      if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.view("log");
      $("search").focus();
    });
  }
}

new Page();
