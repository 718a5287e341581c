// The strip of the deploy under way, or of the last one: a step per stage, one line of words, and its output.

import { pieces, plain } from "./ansi.js";
import { $, el, ms, say, when } from "./dom.js";

const STAGES = ["fingerprint", "compile", "link", "verify-flash", "reflash", "reattach", "ttfb"];
const LOOKS = { ran: "done", "up-to-date": "kept", failed: "failed", interrupted: "failed", running: "now", "not-run": "wait" };
const WORDS = { ran: "done", "up-to-date": "up to date", failed: "failed", interrupted: "interrupted", running: "now", "not-run": "waiting" };

export class Run {
  constructor() {
    this.steps = STAGES.map((stage) => {
      const step = { item: el("li", { class: "step wait" }), time: el("span", { class: "took" }, "–") };
      step.item.append(el("span", { class: "name" }, stage), step.time);
      return step;
    });
    $("steps").replaceChildren(...this.steps.map((one) => one.item));
    $("run-output").addEventListener("click", () => this.unfold($("run-text").hidden));
  }

  unfold(on) {
    $("run-text").hidden = !on;
    $("run-output").setAttribute("aria-expanded", String(on));
    say($("run-output"), on ? "Hide output" : "Show output");
  }

  /** `deploy`: the state of one that was seen; null shows `last`, a row of the history; undefined: not known yet. */
  show(deploy, last, refusal) {
    const running = Boolean(deploy?.running);
    $("deploy").disabled = running || Boolean(refusal) || refusal === undefined;
    $("deploy").title = refusal ? `${refusal.message}: ${refusal.hint}` : "hotplate deploy, in the project's own environment";
    $("stop").hidden = !(running && deploy.ours);
    const stages = deploy ? deploy.stages : STAGES.map((stage) => ({ stage, outcome: last?.stages[stage] ?? "not-run", duration_ms: last?.phases[stage] ?? null }));
    stages.forEach((one, index) => this.step(this.steps[index], one, deploy));
    const [text, look] = deploy ? words(deploy) : earlier(last, refusal);
    say($("run-line"), text);
    $("run-line").title = text.trim();
    $("run-line").className = look;
    $("run-output").classList.toggle("none", !deploy?.output.length);
    if (!deploy?.output.length) this.unfold(false);
    say($("run-text"), deploy ? deploy.output.map((one) => plain(pieces(one))).join("\n") : "");
  }

  step(step, one, deploy) {
    const outcome = one.outcome === "running" && !deploy.running ? "interrupted" : one.outcome;
    const over = one.limit_ms && one.duration_ms > one.limit_ms;
    step.item.className = `step ${LOOKS[outcome] ?? "wait"}${over ? " over" : ""}`;
    step.item.title = `${one.stage}: ${WORDS[outcome] ?? outcome}${one.limit_ms ? `, budget ${ms(one.limit_ms)}` : ""}`;
    say(step.time, one.duration_ms === null ? (outcome === "running" ? "…" : "–") : ms(one.duration_ms));
  }
}

function words(deploy) {
  if (deploy.failure) return [`${deploy.failure.where ? `${deploy.failure.where}: ` : ""}${deploy.failure.message} — ${deploy.failure.hint}`, "bad"];
  const now = deploy.stages.find((one) => one.outcome === "running");
  if (deploy.running) return [`${deploy.tx}${now ? `: ${now.stage}` : ": begun"}`, ""];
  if (deploy.outcome) return [`${deploy.outcome.replaceAll("_", " ")}, ${deploy.tx}`, "good"];
  if (deploy.exit_code) return [`hotplate ended with ${deploy.exit_code}: ${deploy.output.findLast((line) => line.trim()) ?? "it said nothing"}`, "bad"];
  return [`${deploy.tx} ended without a word`, "bad"];
}

function earlier(last, refusal) {
  if (last === undefined) return ["\u00a0", ""];
  if (last) {
    const took = last.total_ms === null ? "" : `, ${ms(last.total_ms)}`;
    return [`Last deploy: ${last.category || last.outcome.replaceAll("_", " ")}${took}, ${when(last.at)}`, last.category ? "bad" : "quiet"];
  }
  if (refusal) return [`Cannot deploy from here: ${refusal.message} — ${refusal.hint}`, "quiet"];
  return ["Not deployed yet.", "quiet"];
}
