// A sheet: something is given on the left, and what the model makes of it is shown on the right.
import { call } from "./api.js";
import { el, field, fill, textArea } from "./dom.js";
import { number, t } from "./words.js";

export class Sheet {
  constructor(app, model) {
    Object.assign(this, { app, model, aborter: null });
    this.button = el("button", { class: "main" });
    this.result = el("section", { class: "result", "aria-label": t("output"), "aria-live": "polite" },
      el("p", { class: "quiet" }, t("resultHint")));
    const onsubmit = (event) => {
      event.preventDefault();
      if (this.aborter) this.aborter.abort();
      else this.run();
    };
    const onkeydown = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
      if (event.key === "Escape") this.aborter?.abort();
    };
    this.form = el("form", { onsubmit, onkeydown }, ...this.inputs(), el("div", { class: "row" }, this.button));
    this.element = el("div", { class: "sheet split" }, this.form, this.result);
    this.drawButton();
  }

  focus() {
    this.form.querySelector("textarea, input").focus();
  }

  hide() {
    this.aborter?.abort();
  }

  drawButton() {
    this.button.textContent = t(this.aborter ? "stop" : "run");
    this.result.setAttribute("aria-busy", Boolean(this.aborter));
  }

  async run() {
    const [path, body] = this.request();
    this.aborter = new AbortController();
    this.drawButton();
    const begun = performance.now();
    try {
      const answer = await call(path, { model: this.model.id, ...body }, this.aborter.signal);
      const took = [t("tokens", { n: number(answer.usage.total_tokens) })];
      took.push(t("seconds", { s: number((performance.now() - begun) / 1000, 2) }));
      fill(this.result, this.show(answer, body), el("p", { class: "info" }, took.join(" · ")));
    } catch (error) {
      const isStopped = error.name === "AbortError";
      fill(this.result, !isStopped && el("p", { class: "fault", role: "alert" }, error.message));
    }
    this.aborter = null;
    this.drawButton();
  }

  /** A text that must be given, under its name. */
  textField(name, rows, label, hint = "", required = true) {
    this[name] = textArea({ rows, required });
    return field(label, this[name], hint);
  }
}

/** A row for each of `items`, `[name, share, shown]`: the bar is as long as the share of 1. */
export function bars(items) {
  const rows = items.map(([name, share, shown]) => {
    const bar = el("i");
    bar.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
    const head = el("th", { scope: "row" }, el("bdi", {}, name));
    return el("tr", {}, head, el("td", { class: "track" }, el("div", {}, bar)), el("td", {}, shown));
  });
  return el("table", { class: "bars" }, el("tbody", {}, rows));
}

/** A text with parts marked: `{start, end, ...}`, counted in characters as Python counts them. `make`
 * gives the element of a part. */
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
