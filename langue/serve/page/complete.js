// A text that a model goes on from, and what it writes; of each token, how likely it was.
import { el, field, fill, icon, textArea } from "./dom.js";
import { keep, read } from "./kept.js";
import { askSettings, fieldsOf, lastSettings, summary } from "./settings.js";
import { percent, t } from "./words.js";
import { Writing, describe } from "./writing.js";

const DRAFT = "langue.draft.";
const TOKENS = 128; // where nothing is said
const OTHERS = 5; // tokens that are told beside the chosen one

export class CompleteView {
  constructor(app, model) {
    Object.assign(this, { app, model, settings: lastSettings(), text: "", tokens: [], writing: null });
    this.prompt = textArea({ rows: 4 });
    this.prompt.value = read(DRAFT + model.id) ?? "";
    this.prompt.addEventListener("change", () => this.keepDraft());
    this.output = el("div", { class: "output", role: "group", "aria-label": t("output") });
    this.token = el("p", { class: "token", role: "status" });
    this.info = el("p", { class: "info" });
    this.button = el("button", { class: "main" });
    const goOn = () => this.goOn();
    this.takeOver = el("button", { type: "button", class: "quiet", onclick: goOn }, t("takeOver"));
    this.choice = el("button", { type: "button", class: "quiet", onclick: () => this.askSettings() });
    this.isShaded = el("input", { type: "checkbox", onchange: () => this.draw() });
    const onsubmit = (event) => {
      event.preventDefault();
      if (this.writing) this.writing.stop();
      else this.run();
    };
    const onkeydown = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) onsubmit(event);
      if (event.key === "Escape") this.writing?.stop();
    };
    this.element = el("div", { class: "sheet" },
      el("form", { onsubmit, onkeydown }, field(t("prompt"), this.prompt),
        el("div", { class: "row" }, this.button, this.choice, this.takeOver, el("span", { class: "space" }),
          el("label", { class: "check" }, this.isShaded, t("probabilities")))),
      this.output, this.token, this.info);
    this.draw();
  }

  shown() {
    this.prompt.fit();
  }

  focus() {
    this.prompt.focus();
  }

  hide() {
    this.writing?.stop();
  }

  keepDraft() {
    if (!keep(DRAFT + this.model.id, this.prompt.value)) this.app.notify(t("full"));
  }

  askSettings() {
    askSettings(this.settings, false, (settings) => {
      this.settings = settings;
      this.draw();
    });
  }

  draw() {
    this.button.textContent = t(this.writing ? "stop" : "continue");
    this.takeOver.hidden = !this.text || Boolean(this.writing);
    const said = summary({ ...this.settings, system: "" });
    fill(this.choice, icon("sliders"), el("span", {}, said || t("settings")));
    fill(this.output, this.isShaded.checked ? this.tokens.map((_, index) => this.show(index)) : this.text);
    fill(this.token);
  }

  async run() {
    if (!this.prompt.value) return this.prompt.focus();
    this.keepDraft();
    const asked = { max_tokens: TOKENS, ...fieldsOf(this.settings), logprobs: OTHERS };
    const body = { model: this.model.id, prompt: this.prompt.value, ...asked };
    this.tokens = [];
    this.text = "";
    this.writing = new Writing(this, "v1/completions", body);
    this.writing.onText = (part, choice) => {
      this.text += part;
      const { tokens = [], token_logprobs: logs, top_logprobs: others } = choice.logprobs ?? {};
      const begin = this.tokens.length;
      this.tokens.push(...tokens.map((text, i) => ({ text, log: logs[i], others: others[i] })));
      const added = this.tokens.slice(begin).map((_, index) => this.show(begin + index));
      this.output.append(...(this.isShaded.checked ? added : [part]));
    };
    fill(this.info, t("isWriting"));
    this.draw();
    await this.writing.run();
    const { error, info } = this.writing;
    this.writing = null;
    this.info.classList.toggle("fault", Boolean(error));
    fill(this.info, error || describe(info));
    this.app.say(error || this.text);
    this.draw();
  }

  /** A token: the less likely it was, the darker. */
  show(index) {
    const { text, log } = this.tokens[index];
    const shade = Math.min(4, Math.floor(-log / Math.LN2 / 1.5));
    const move = (step) => this.output.children[index + step]?.focus();
    const onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) (event.preventDefault(), move(step));
    };
    const attributes = { class: `token-${shade}`, tabindex: index ? -1 : 0, onkeydown };
    const tell = () => this.tell(index);
    return el("span", { ...attributes, onfocus: tell, onmouseenter: tell }, text.replace(/^bytes:/, ""));
  }

  /** How likely a token was, and what else could have stood there. */
  tell(index) {
    const { text, log, others } = this.tokens[index];
    const said = (name, value) => `${JSON.stringify(name)} ${percent(Math.exp(value))}`;
    const rest = Object.entries(others).filter(([name]) => name !== text);
    const beside = rest.map(([name, value]) => ` · ${said(name, value)}`).join("");
    fill(this.token, el("strong", {}, said(text, log)), beside);
  }

  /** Take what was written for the text to go on from. */
  goOn() {
    this.prompt.value += this.text;
    this.text = "";
    this.tokens = [];
    this.keepDraft();
    this.draw();
    this.shown();
    this.focus();
  }
}
