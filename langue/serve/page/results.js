// The views of models whose results are not a conversation, by the shape of these results.
import { el, field, fill } from "./dom.js";
import { Sheet, bars, marked } from "./sheet.js";
import { number, percent, t } from "./words.js";
import { describe, written } from "./writing.js";

const HUES = 6;
const SHOWN = 3; // answers

/** Texts that may be cut where they are too long for the model. */
class CuttingSheet extends Sheet {
  controls() {
    this.isCut = el("input", { type: "checkbox" });
    const choice = el("label", { class: "check" }, this.isCut, t("cut"));
    return [...super.controls(), el("span", { class: "space" }), choice];
  }
}

/** A text, or two where the model compares them. */
class TextsView extends CuttingSheet {
  inputs() {
    const { pairs } = this.model;
    const hint = pairs === null ? t("pairOptional") : "";
    return [
      this.textField("text", 6, t("context")),
      pairs !== false && this.textField("pair", 4, t("pair"), hint, pairs === true),
    ];
  }

  request() {
    const pair = this.pair?.value;
    const input = pair ? [[this.text.value, pair]] : this.text.value;
    return ["v1/classify", { input, top: "all", truncate: this.isCut.checked }];
  }
}

/** Labels with their probabilities, as bars. */
export class LabelsView extends TextsView {
  show({ data }) {
    return bars((data[0].labels ?? []).map(({ label, score }) => [label, score, percent(score)]));
  }
}

/** One number. */
export class NumberView extends TextsView {
  show({ data }) {
    return el("p", { class: "figure" }, number(data[0].labels[0].score, 3));
  }
}

/** Parts of a text, marked in it. */
export class SpansView extends CuttingSheet {
  inputs() {
    return [this.textField("text", 10, t("context"))];
  }

  request() {
    return ["v1/tag", { input: this.text.value, truncate: this.isCut.checked }];
  }

  show({ data }, { input }) {
    const found = data[0].entities ?? [];
    if (!found.length) return el("p", {}, t("nothingFound"));
    const nameOf = (each) => each.entity_group ?? each.entity;
    const names = [...new Set(found.map(nameOf))];
    const hue = (name) => `hue-${names.indexOf(name) % HUES}`;
    const text = marked(input, found, (each, part) =>
      el("mark", { class: hue(nameOf(each)) }, part, el("span", { class: "tag" }, nameOf(each))));
    const rows = found.map((each) =>
      el("tr", {}, el("th", { scope: "row" }, each.word), el("td", {}, nameOf(each)),
        el("td", {}, percent(each.score))));
    const table = el("table", { class: "list-of" }, el("tbody", {}, rows));
    return [text, el("details", {}, el("summary", {}, t("asTable", { n: found.length })), table)];
  }
}

/** Answers, where they stand in a text. */
export class AnswersView extends Sheet {
  inputs() {
    return [this.textField("question", 1, t("question")), this.textField("text", 10, t("context"))];
  }

  request() {
    const given = { question: this.question.value, context: this.text.value };
    return ["v1/answer", { ...given, top: SHOWN }];
  }

  show({ data }, { context }) {
    const answers = data[0].answers ?? [];
    const passage = el("div");
    const choices = answers.map((answer) =>
      el("button", { type: "button", onclick: () => choose(answer) },
        el("bdi", {}, answer.answer || t("noAnswer")), el("span", { class: "quiet" }, percent(answer.score))));
    const choose = (chosen) => {
      const parts = chosen.answer ? [chosen] : [];
      fill(passage, marked(context, parts, (_, part) => el("mark", { class: "hue-0" }, part)));
      choices.forEach((each, index) => each.setAttribute("aria-pressed", answers[index] === chosen));
    };
    if (answers.length) choose(answers[0]);
    return [el("div", { class: "row choices" }, choices), passage];
  }
}

/** A text that is written for another one, beside it. */
export class TextView extends Sheet {
  inputs() {
    const { languages } = this.model;
    const choice = (name) => {
      const options = languages.map((code) => el("option", { value: code }, code));
      this[name] = el("select", {}, el("option", { value: "" }, t("default")), options);
      return this[name];
    };
    this.beams = el("input", { type: "number", min: 1, max: 64, step: 1, placeholder: t("default") });
    return [
      this.textField("text", 10, t("source")),
      el("div", { class: "grid" },
        languages.length > 0 && field(t("sourceLanguage"), choice("from")),
        languages.length > 0 && field(t("targetLanguage"), choice("to")),
        field(t("beams"), this.beams, t("beamsHint"))),
    ];
  }

  request() {
    const chosen = { source_language: this.from?.value, target_language: this.to?.value };
    const given = Object.entries(chosen).filter(([, value]) => value);
    if (this.beams.value) given.push(["beams", this.beams.valueAsNumber]);
    const path = this.model.languages.length ? "v1/translate" : "v1/summarise";
    return [path, { model: this.model.id, input: this.text.value, ...Object.fromEntries(given) }];
  }

  async ask(signal) {
    const passage = el("p", { class: "passage", "aria-live": "off" });
    fill(this.output, passage);
    const info = {};
    for await (const { text } of written(...this.request(), signal, info)) passage.append(text);
    this.app.say(passage.textContent);
    return describe(info);
  }
}

/** Texts by how near their vectors are to another's. */
export class VectorsView extends CuttingSheet {
  inputs() {
    return [
      this.textField("query", 2, t("query")),
      this.textField("texts", 8, t("texts"), t("oneALine")),
    ];
  }

  request() {
    const documents = this.texts.value.split("\n").filter((line) => line.trim());
    return ["v1/rerank", { query: this.query.value, documents, truncate: this.isCut.checked }];
  }

  show({ results }, { documents }) {
    return bars(results.map(({ index, relevance_score: score }) => [documents[index], score, number(score, 3)]));
  }
}

/** What was written about a run: how it was trained, its curves, and how good it is. */
export class ReportView {
  constructor(app, model) {
    const attributes = { src: model.report.slice(1), title: t("report"), sandbox: "", class: "report" };
    this.element = el("iframe", attributes);
  }
}
