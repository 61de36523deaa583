// A sheet: something is given, and what the model makes of it is shown beside it, or below.
import { call } from "./api.js";
import { el, field, fill, form, textArea } from "./dom.js";
import { forThisTab } from "./kept.js";
import { number, t, tokens } from "./words.js";

const DRAFT = "langue.draft.";

/** What views of this kind say: `inputs()`, the fields; `request()`, the route and its body; and
 * `show(answer, body)`, the elements of an answer. */
export class Sheet {
  static layout = "sheet split";
  static action = "run";

  constructor(app, model) {
    Object.assign(this, { app, model, aborter: null });
    this.button = el("button", { class: "main" });
    this.output = el("div", { "aria-live": "polite" }, el("p", { class: "quiet" }, t("resultHint")));
    this.status = el("p", { class: "info" });
    this.result = el("section", { class: "result", "aria-label": t("output") },
      this.output, this.status);
    const submit = () => {
      if (this.aborter) this.stop();
      else this.run();
    };
    this.form = form({ submit, escape: () => this.stop() }, ...this.inputs(),
      el("div", { class: "row" }, this.button, ...this.controls()));
    this.element = el("div", { class: this.constructor.layout }, this.form, this.result);
    this.draw();
  }

  /** After it stands in the document. */
  shown() {
    this.form.querySelectorAll("textarea").forEach((area) => area.fit());
  }

  focus() {
    this.form.querySelector("textarea").focus();
  }

  hide() {
    this.stop();
  }

  stop() {
    this.aborter?.abort();
  }

  draw() {
    this.button.textContent = t(this.aborter ? "stop" : this.constructor.action);
    this.result.setAttribute("aria-busy", Boolean(this.aborter));
  }

  async run() {
    const begun = performance.now();
    const tick = () => {
      fill(this.status, t("running", { s: number((performance.now() - begun) / 1000) }));
    };
    this.aborter = new AbortController();
    fill(this.output);
    this.draw();
    this.app.unsay();
    tick();
    const timer = setInterval(tick, 1000);
    try {
      fill(this.status, await this.ask(this.aborter.signal));
    } catch (error) {
      const isStopped = error.name === "AbortError";
      fill(this.status, isStopped ? t("stopped") : el("span", { class: "fault", role: "alert" }, error.message));
    }
    clearInterval(timer);
    this.aborter = null;
    this.draw();
    this.result.scrollIntoView({ block: "nearest" });
  }

  /** Fill `output`; how that came about, in one line. */
  async ask(signal) {
    const [path, body] = this.request();
    const begun = performance.now();
    const answer = await call(path, { model: this.model.id, ...body }, signal);
    fill(this.output, this.show(answer, body));
    const seconds = t("seconds", { s: number((performance.now() - begun) / 1000, 2) });
    const cut = answer.truncated > 0 && t("cutTexts", { n: number(answer.truncated) });
    return [tokens(answer.usage.total_tokens), seconds, cut].filter(Boolean).join(" · ");
  }

  /** What stands beside the button. */
  controls() {
    return [el("kbd", {}, "Ctrl+Enter")];
  }

  /** A text under its name, as it was when such a text was given last. */
  textField(name, rows, label, hint = "", required = true) {
    const area = textArea({ rows, required });
    area.value = forThisTab.read(DRAFT + name) ?? "";
    area.addEventListener("input", () => forThisTab.keep(DRAFT + name, area.value));
    this[name] = area;
    return field(label, area, hint);
  }
}

/** A bar for each of `items`, `[name, share, shown]`: it is as long as the share of 1. */
export function bars(items) {
  const rows = items.map(([name, share, shown]) => {
    const bar = el("i");
    bar.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
    return el("li", {}, el("bdi", {}, name), el("span", {}, shown), el("div", { class: "track" }, bar));
  });
  return el("ol", { class: "bars" }, rows);
}

/** A text with parts marked: `{start, end, ...}`, counted in characters as Python counts them.
 * `make` gives the element of a part. */
export function marked(text, parts, make) {
  const characters = [...text];
  const slice = (begin, end) => characters.slice(begin, end).join("");
  const pieces = [];
  let place = 0;
  for (const part of [...parts].sort((one, other) => one.start - other.start)) {
    if (part.start < place) continue; // within one that is marked already
    pieces.push(slice(place, part.start), make(part, slice(part.start, part.end)));
    place = part.end;
  }
  return el("p", { class: "passage" }, ...pieces, slice(place));
}
