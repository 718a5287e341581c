// The list of devices, and the head of the one that is looked at.

import { $, count, el, say } from "./dom.js";

const STATES = { open: "listening", gone: "unplugged", closed: "released" };

/** Good, bad or neither, and in words. */
export function stateOf(device) {
  if (device.failure) return ["bad", device.failure.message];
  if (device.holder) return ["busy", device.holder.tx ? "deploying" : "lent"];
  return [device.state === "open" ? "good" : device.state === "gone" ? "bad" : "off", STATES[device.state] ?? device.state];
}

export class Devices {
  /** `chosen(key)` when a device is clicked. */
  constructor(chosen) {
    this.chosen = chosen;
    this.cards = new Map();
  }

  /** `devices` is null until the service has told them. */
  show(told, current) {
    const devices = told ?? [];
    $("no-devices").hidden = told === null || devices.length > 0;
    const projects = new Set(devices.map((one) => one.project)).size;
    for (const [key, card] of this.cards) {
      if (!devices.some((one) => one.key === key)) {
        card.item.remove();
        this.cards.delete(key);
      }
    }
    for (const device of devices) {
      if (!this.cards.has(device.key)) this.cards.set(device.key, this.card(device.key));
      this.fill(this.cards.get(device.key), device, device.key === current, projects > 1);
    }
  }

  card(key) {
    const card = { name: el("strong"), state: el("span", { class: "state" }), words: el("span", { class: "words" }), place: el("span", { class: "place quiet" }), dots: el("span", { class: "dots" }) };
    card.button = el("button", { class: "card", on: { click: () => this.chosen(key) } },
      el("span", { class: "top" }, card.state, card.name, card.words), card.place, card.dots);
    card.item = el("li", {}, card.button);
    $("devices").append(card.item);
    return card;
  }

  fill(card, device, current, several) {
    const [look, words] = stateOf(device);
    say(card.name, device.name);
    card.state.className = `state ${look}`;
    say(card.words, words);
    card.button.title = several ? `${device.root}: ${words}` : words;
    say(card.place, `${several ? `${device.project_name} · ` : ""}${device.port}`);
    if (current) card.button.setAttribute("aria-current", "true");
    else card.button.removeAttribute("aria-current");
    const bad = device.modules.filter((one) => !one.good).length;
    const told = device.modules.length ? (bad ? `${bad} of ${device.modules.length} modules unwell` : `${device.modules.length} modules well`) : "no health yet";
    const drawn = JSON.stringify([device.modules, device.modules_from?.current]);
    if (card.drawn === drawn) return;
    card.drawn = drawn;
    card.dots.replaceChildren(...device.modules.slice(0, 16).map((one) => el("i", { class: dotClass(one, device) })), el("span", { class: "quiet" }, told));
  }
}

const dotClass = (module, device) => `dot ${module.good ? "good" : "bad"}${device.modules_from?.current ? "" : " old"}`;

/** Name, facts, modules and buttons of one device. */
export function head(device) {
  say($("device-name"), device?.name ?? "\u00a0");
  const facts = device && [device.chip, device.port, device.mac, device.elf && `firmware ${device.elf.slice(0, 9)}`, `${count(device.bytes_seen)} bytes heard`];
  say($("device-facts"), facts?.filter(Boolean).join(" · ") || "\u00a0");
  $("device-facts").title = $("device-facts").textContent.trim();
  holder(device);
  modules(device);
  const open = device && device.state !== "closed";
  $("reset").disabled = !device || !open || Boolean(device.holder);
  $("release").disabled = !device || Boolean(device.holder);
  say($("release"), open ? "Release port" : "Open port");
  $("release").title = open ? "Leave the port to another program" : "Listen on the port again";
  $("reset").title = device?.holder ? "The port is lent" : "Reset the board into its application";
}

function holder(device) {
  const line = $("holder");
  let text = "\u00a0";
  if (device?.failure) text = `${device.failure.message} — ${device.failure.hint}`;
  else if (device?.holder) text = `Lent to ${device.holder.text}`;
  else if (device?.state === "gone") text = "The port is gone; it is waited for.";
  else if (device?.state === "closed") text = "The port is closed, and free for other programs.";
  else if (device) text = "Listening on the port.";
  say(line, text);
  line.title = device?.holder ? `${text}: ${device.holder.command}${device.holder.reason ? `, ${device.holder.reason}` : ""}` : text.trim();
  line.classList.toggle("bad", Boolean(device?.failure));
}

function modules(device) {
  const list = $("modules");
  const drawn = JSON.stringify([device?.key, device?.modules, device?.modules_from]);
  if (list.drawn === drawn) return;
  list.drawn = drawn;
  const from = device?.modules_from;
  const source = !from ? "" : from.source === "console" ? (from.current ? "" : ", before the last reset") : `, in ${from.source}`;
  const items = (device?.modules ?? []).map((one) => {
    const chip = el("button", { class: "chip", type: "button" }, el("i", { class: dotClass(one, device) }), one.name,
      el("span", { class: "tip", role: "tooltip" }, `${one.text}${source}`));
    chip.setAttribute("aria-label", `${one.name}, ${one.good ? "good" : "bad"}: ${one.text}${source}`);
    return el("li", {}, chip);
  });
  if (device && !items.length) items.push(el("li", { class: "hint" }, "No answer to health was heard yet."));
  list.replaceChildren(...items);
}
