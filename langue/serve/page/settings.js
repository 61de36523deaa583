// How is to be written: what is left empty is as the model says.
import { el, field, form, textArea } from "./dom.js";
import { forGood } from "./kept.js";
import { t } from "./words.js";

const KEY = "langue.settings";
const NUMBERS = [
  { name: "temperature", min: 0, max: 2, step: "any" },
  { name: "max_tokens", min: 1, step: 1 },
  { name: "top_p", min: 0.01, max: 1, step: "any" },
  { name: "top_k", min: 0, step: 1 },
  { name: "min_p", min: 0, max: 1, step: "any" },
  { name: "repetition_penalty", min: 0.01, max: 100, step: "any" },
  { name: "seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1 },
];

/** Those that were chosen last. */
export function lastSettings() {
  return forGood.readJson(KEY) ?? {};
}

/** The fields of a call that settings stand for. */
export function fieldsOf(settings) {
  const { system, stop, ...numbers } = settings;
  const stops = (stop ?? "").split("\n").filter(Boolean);
  return stops.length ? { ...numbers, stop: stops } : numbers;
}

/** What is set, in a few words. */
export function summary(settings) {
  const given = NUMBERS.filter(({ name }) => settings[name] !== undefined);
  const said = given.map(({ name }) => `${t(name)} ${settings[name]}`);
  if (settings.stop) said.push(t("stopTexts"));
  if (settings.system) said.push(t("system"));
  return said.join(" · ");
}

/** Have them changed; `done(settings)` is called with what was saved. */
export function askSettings(settings, withSystem, done) {
  const inputs = NUMBERS.map((number) => {
    const value = settings[number.name];
    const more = { type: "number", inputmode: "decimal", placeholder: t("default"), value };
    return el("input", { ...number, ...more });
  });
  const stop = textArea({ name: "stop" });
  const system = textArea({ name: "system", rows: 3 });
  stop.value = settings.stop ?? "";
  system.value = settings.system ?? "";
  const read = () => {
    const filled = inputs.filter((each) => each.value !== "");
    const found = Object.fromEntries(filled.map((each) => [each.name, each.valueAsNumber]));
    if (stop.value.trim()) found.stop = stop.value;
    if (system.value.trim()) found.system = system.value;
    return found;
  };
  const save = (chosen) => {
    forGood.keep(KEY, JSON.stringify(chosen));
    dialog.close();
    done(chosen);
  };
  const dialog = openDialog(t("settings"),
    form({ submit: () => save(read()) },
      withSystem && field(t("system"), system, t("systemHint")),
      el("div", { class: "grid" },
        inputs.map((each) => field(t(each.name), each, t(`${each.name}Hint`))),
        field(t("stopTexts"), stop, t("oneALine"))),
      el("div", { class: "row end" },
        el("button", { type: "button", onclick: () => save({}) }, t("reset")),
        el("button", { type: "button", onclick: () => dialog.close() }, t("cancel")),
        el("button", { class: "main" }, t("save")))));
  system.fit();
  stop.fit();
}

/** A window over the page, which takes the focus and gives it back. */
export function openDialog(title, ...content) {
  const heading = el("h2", { id: "dialog-title" }, title);
  const dialog = el("dialog", { "aria-labelledby": "dialog-title" }, heading, content);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
