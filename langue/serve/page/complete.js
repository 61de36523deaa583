// A text that a model goes on from, and what it writes; of each token, how likely it was.
import { el, fill, icon } from "./dom.js";
import { askSettings, fieldsOf, lastSettings, summary } from "./settings.js";
import { Sheet } from "./sheet.js";
import { percent, t } from "./words.js";
import { describe, written } from "./writing.js";

const TOKENS = 128; // where nothing is said
const OTHERS = 5; // tokens that are told beside the chosen one
const SHADES = 4;
const BITS = 1.5; // of surprise, for each shade

export class CompleteView extends Sheet {
  static layout = "sheet";
  static action = "continue";

  constructor(app, model) {
    super(app, model);
    this.clear();
    this.token = el("p", { class: "token", role: "status" });
    this.output.classList.add("output");
    this.output.setAttribute("aria-live", "off");
    this.output.setAttribute("role", "group");
    this.output.setAttribute("aria-label", t("output"));
    this.output.after(this.token);
  }

  inputs() {
    return [this.textField("prompt", 4, t("prompt"))];
  }

  controls() {
    this.settings = lastSettings();
    this.choice = el("button", { type: "button", class: "quiet", onclick: () => this.askSettings() });
    this.takeOver = el("button", { type: "button", class: "quiet", onclick: () => this.goOn() },
      t("takeOver"));
    this.isShaded = el("input", { type: "checkbox", onchange: () => this.drawOutput() });
    const shading = el("label", { class: "check" }, this.isShaded, t("probabilities"));
    return [...super.controls(), this.choice, this.takeOver, el("span", { class: "space" }), shading];
  }

  clear() {
    this.text = "";
    this.tokens = [];
  }

  askSettings() {
    askSettings(this.settings, false, (settings) => {
      this.settings = settings;
      this.draw();
    });
  }

  draw() {
    super.draw();
    this.takeOver.hidden = !this.text || Boolean(this.aborter);
    const said = summary({ ...this.settings, system: "" });
    fill(this.choice, icon("sliders"), el("span", {}, said || t("settings")));
  }

  drawOutput() {
    const isShaded = this.isShaded.checked;
    fill(this.output, isShaded ? this.tokens.map((_, index) => this.show(index)) : this.text);
    fill(this.token, isShaded && this.tokens.length > 0 && t("shadeHint"));
  }

  async ask(signal) {
    this.clear();
    this.drawOutput();
    this.draw();
    const given = { max_tokens: TOKENS, ...fieldsOf(this.settings), logprobs: OTHERS };
    const body = { model: this.model.id, prompt: this.prompt.value, ...given };
    const info = {};
    for await (const { text, logprobs } of written("v1/completions", body, signal, info)) {
      const begin = this.tokens.length;
      this.text += text;
      this.tokens.push(...tokensOf(logprobs));
      const added = this.tokens.slice(begin).map((_, index) => this.show(begin + index));
      this.output.append(...(this.isShaded.checked ? added : [text]));
    }
    this.drawOutput();
    this.app.say(this.text);
    return describe(info);
  }

  /** A token: the less likely it was, the darker. */
  show(index) {
    const { text, log } = this.tokens[index];
    const shade = Math.min(SHADES, Math.floor(-log / Math.LN2 / BITS));
    const move = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      this.output.children[index + step]?.focus();
    };
    const tell = () => this.tell(index);
    const attributes = { class: `token-${shade}`, tabindex: index ? -1 : 0 };
    return el("span", { ...attributes, onkeydown: move, onfocus: tell, onmouseenter: tell },
      text.replace(/^bytes:/, ""));
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
    this.prompt.dispatchEvent(new Event("input"));
    this.clear();
    this.drawOutput();
    this.draw();
    this.focus();
  }
}

/** The tokens of a part, each with its logarithm of probability and those of others. */
function tokensOf(logprobs) {
  const { tokens, token_logprobs: logs, top_logprobs: others } = logprobs ?? { tokens: [] };
  return tokens.map((text, index) => ({ text, log: logs[index], others: others[index] }));
}
