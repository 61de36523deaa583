// How is to be written: what is left empty is as the model says.
import { el, field, textArea } from "./dom.js";
import { keep, readJson } from "./kept.js";
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
  return readJson(KEY) ?? {};
}

/** The fields of a call that settings stand for. */
export function fieldsOf(settings) {
  const { system, stop, ...numbers } = settings;
  const stops = (stop ?? "").split("\n").filter(Boolean);
  return stops.length ? { ...numbers, stop: stops } : numbers;
}

/** What is set, in a few words. */
export function summary(settings) {
  const said = NUMBERS.filter(({ name }) => settings[name] !== undefined).map(
    ({ name }) => `${t(name)} ${settings[name]}`,
  );
  if (settings.stop) said.push(t("stopTexts"));
  if (settings.system) said.push(t("system"));
  return said.join(" · ");
}

/** Have them changed; `done(settings)` is called with what was saved. */
export function askSettings(settings, withSystem, done) {
  const inputs = NUMBERS.map(({ name, ...bounds }) =>
    el("input", {
      ...bounds,
      type: "number",
      name,
      inputmode: "decimal",
      placeholder: t("modelsOwn"),
      value: settings[name],
    }),
  );
  const stop = textArea({ name: "stop" });
  const system = textArea({ name: "system", rows: 3 });
  stop.value = settings.stop ?? "";
  system.value = settings.system ?? "";
  const read = () => {
    const filled = inputs.filter((each) => each.value !== "");
    const found = Object.fromEntries(filled.map((each) => [each.name, each.valueAsNumber]));
    if (stop.value.trim()) found.stop = stop.value;
    if (withSystem && system.value.trim()) found.system = system.value;
    return found;
  };
  const close = (saved) => {
    if (saved) keep(KEY, JSON.stringify(saved));
    dialog.close();
    if (saved) done(saved);
  };
  const onsubmit = (event) => {
    event.preventDefault();
    close(read());
  };
  const dialog = openDialog(
    t("settings"),
    el(
      "form",
      { onsubmit },
      withSystem && field(t("system"), system, t("systemHint")),
      el("div", { class: "grid" }, inputs.map((each) => field(t(each.name), each))),
      field(t("stopTexts"), stop, t("stopTextsHint")),
      el(
        "div",
        { class: "row end" },
        el("button", { type: "button", onclick: () => close({}) }, t("reset")),
        el("button", { type: "button", onclick: () => close(null) }, t("cancel")),
        el("button", { class: "main" }, t("save")),
      ),
    ),
  );
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
