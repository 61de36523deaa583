// The page: which model, which view of it, and what stands around the view.
import { call, key } from "./api.js";
import { ChatView } from "./chat.js";
import { CompleteView } from "./complete.js";
import { el, field, fill, form, iconButton } from "./dom.js";
import { forGood } from "./kept.js";
import {
  AnswersView, LabelsView, NumberView, ReportView, SpansView, TextView, VectorsView,
} from "./results.js";
import { openDialog } from "./settings.js";
import { language, switchLanguage, t } from "./words.js";

const THEMES = ["auto", "light", "dark"];
const THEME = "langue.theme";
const NOTICE = 8000; // milliseconds

// The views of a model, by the shape of its results; the first is what it opens with.
const VIEWS = {
  messages: [["chat", ChatView], ["complete", CompleteView]],
  continuation: [["complete", CompleteView]],
  labels: [["tryIt", LabelsView]],
  number: [["tryIt", NumberView]],
  spans: [["tryIt", SpansView]],
  answers: [["tryIt", AnswersView]],
  text: [["tryIt", TextView]],
  vectors: [["tryIt", VectorsView]],
};

class App {
  constructor() {
    this.models = [];
    this.view = null;
    this.needsKey = key.value !== "";
    window.addEventListener("hashchange", () => this.draw());
  }

  /** What the address asks for: `model`, `view` and `conversation`. */
  get route() {
    return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  }

  /** Go elsewhere; what is not named stays. isSame: the view has drawn it already. */
  go(changes, isSame = false) {
    const next = Object.entries({ ...this.route, ...changes }).filter(([, value]) => value);
    const hash = `#${new URLSearchParams(next)}`;
    if (isSame) history.replaceState(null, "", hash);
    else if (location.hash !== hash) location.hash = hash;
    else this.draw();
  }

  async start() {
    this.drawHead();
    try {
      this.models = (await call("v1/models")).data;
    } catch (error) {
      if (error.status === 401) this.askKey(key.value && error.message);
      else this.fail(error.message);
      return;
    }
    this.draw();
  }

  get model() {
    return this.models.find((each) => each.id === this.route.model) ?? this.models[0];
  }

  /** The views of the model in use: pairs of a name and a class. */
  get views() {
    const own = VIEWS[this.model.result];
    return this.model.report ? [...own, ["report", ReportView]] : own;
  }

  /** The pair of the view in use. */
  get current() {
    return this.views.find(([name]) => name === this.route.view) ?? this.views[0];
  }

  draw() {
    this.drawHead();
    this.view?.hide?.();
    if (!this.models.length) {
      this.fail(t("noModels"));
      return;
    }
    const [name, View] = this.current;
    this.view = new View(this, this.model);
    document.title = `${this.model.id} · langue`;
    fill(document.getElementById("main"), el("h1", { class: "hidden" }, this.model.id, " · ", t(name)),
      this.view.element);
    this.view.shown?.();
    // who chooses in the head by keys goes on from there
    if (!document.getElementById("head").contains(document.activeElement)) this.view.focus?.();
  }

  drawHead() {
    const head = document.getElementById("head");
    const focused = head.contains(document.activeElement) ? document.activeElement.id : "";
    const toMain = () => document.getElementById("main").focus();
    fill(head,
      el("button", { class: "skip", type: "button", onclick: toMain }, t("skip")),
      el("span", { class: "brand" }, "langue"),
      this.models.length > 0 && this.modelChoice(),
      this.models.length > 0 && this.viewChoice(),
      el("span", { class: "space" }),
      el("button", { id: "language", type: "button", class: "quiet", lang: language === "en" ? "zh" : "en",
        onclick: () => this.switchLanguage() }, t("otherLanguage")),
      this.themeButton(),
      this.needsKey && iconButton("key", t("apiKey"), () => this.askKey("")),
    );
    if (focused) document.getElementById(focused)?.focus();
  }

  modelChoice() {
    const onchange = (event) => this.go({ model: event.target.value, view: "", conversation: "" });
    const chosen = this.model.id;
    const options = this.models.map(({ id }) => el("option", { value: id, selected: id === chosen }, id));
    return el("select", { id: "model", "aria-label": t("model"), onchange }, options);
  }

  viewChoice() {
    if (this.views.length < 2) return null;
    const [current] = this.current;
    const tabs = this.views.map(([name]) =>
      el("button", { id: `view-${name}`, type: "button", class: "tab",
        "aria-current": name === current && "page", onclick: () => this.go({ view: name }) }, t(name)));
    return el("nav", { class: "tabs", "aria-label": t("views") }, tabs);
  }

  themeButton() {
    const now = document.documentElement.dataset.theme ?? "auto";
    const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    const label = t("theme", { name: t(now === "auto" ? "themeAuto" : now) });
    const onclick = () => {
      if (next === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = next;
      forGood.keep(THEME, next);
      this.drawHead();
    };
    return iconButton({ auto: "auto", light: "sun", dark: "moon" }[now], label, onclick, { id: "theme" });
  }

  switchLanguage() {
    switchLanguage();
    if (this.models.length) this.draw();
    else this.start();
  }

  /** Ask for the key, and begin anew with it. */
  askKey(fault = "") {
    this.needsKey = true;
    this.drawHead();
    const input = el("input", { type: "password", autocomplete: "off", required: true });
    const submit = () => {
      key.set(input.value.trim());
      dialog.close();
      this.start();
    };
    const dialog = openDialog(t("apiKey"),
      el("p", {}, t("askedKey")),
      fault && el("p", { class: "fault", role: "alert" }, fault),
      form({ submit }, field(t("apiKey"), input),
        el("div", { class: "row end" }, el("button", { class: "main" }, t("useIt")))));
  }

  fail(message) {
    fill(document.getElementById("main"),
      el("h1", { class: "hidden" }, "langue"),
      el("p", { class: "fault", role: "alert" }, message),
      el("button", { type: "button", class: "retry", onclick: () => this.start() }, t("retry")));
  }

  /** Say something for a while, and offer to do something about it. */
  notify(message, action = "", onclick = () => {}) {
    const act = () => {
      onclick();
      notice.remove();
    };
    const undo = action && el("button", { type: "button", onclick: act }, action);
    const notice = el("div", { class: "notice" }, message, undo);
    fill(document.getElementById("notices"), notice);
    setTimeout(() => notice.remove(), NOTICE);
  }

  /** Have a screen reader say something, without the marks of Markdown. */
  say(text) {
    const plain = text.replace(/[*`|]|^[#>]+ /gm, "").trim();
    if (plain) document.getElementById("spoken").append(el("p", {}, plain));
  }

  unsay() {
    fill(document.getElementById("spoken"));
  }
}

new App().start();
