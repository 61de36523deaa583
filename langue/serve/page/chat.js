// A conversation: its messages, and what is written to be sent.
import { copyText, el, fill, form, icon, iconButton, textArea } from "./dom.js";
import { History } from "./history.js";
import { markdownWriter } from "./markdown.js";
import { askSettings, fieldsOf, lastSettings, openDialog, summary } from "./settings.js";
import * as store from "./store.js";
import { number, t } from "./words.js";
import { Writing, describe, writingOf } from "./writing.js";

const SAID = 500; // characters that a screen reader is given at a time; as a rule, whole sentences
const NEAR = 80; // pixels from the end, within which the view follows what is written

export class ChatView {
  constructor(app, model) {
    Object.assign(this, { app, model });
    const kept = app.route.conversation && store.load(app.route.conversation);
    this.conversation = kept || store.newConversation(lastSettings());
    this.messages = el("div", { class: "messages" });
    this.scroller = el("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": t("chat") },
      this.messages);
    this.history = new History(app, this.conversation);
    this.element = el("div", { class: "chat" }, this.history.element,
      el("div", { class: "talk" }, this.scroller, this.composer()));
    this.draw();
  }

  /** What is being written here; undefined: nothing. */
  get writing() {
    return writingOf(this.conversation);
  }

  /** After it stands in the document. */
  shown() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /** Where there is a keyboard on the screen, it is not to come up by itself. */
  focus() {
    if (matchMedia("(min-width: 48rem)").matches) this.input.focus();
  }

  /** Look on no more; what is being written goes on. */
  hide() {
    this.writing?.leave();
  }

  // --- what is sent ---

  composer() {
    const stopOrSend = () => {
      if (this.writing) this.writing.stop();
      else this.send();
    };
    this.input = textArea({ class: "input", placeholder: t("words"), "aria-label": t("words") });
    this.button = el("button", { type: "button", class: "send", onclick: stopOrSend });
    this.settings = el("button", { type: "button", class: "quiet", onclick: () => this.askSettings() });
    const history = el("button", { type: "button", class: "quiet narrow", onclick: () => this.openHistory() },
      icon("list"), t("history"));
    const submit = () => this.send();
    const escape = () => this.writing?.stop();
    return form({ class: "composer", submit, escape, byEnter: true },
      el("div", { class: "box" }, this.input, this.button),
      el("div", { class: "under" }, this.settings, history));
  }

  drawComposer() {
    const label = t(this.writing ? "stop" : "send");
    fill(this.button, icon(this.writing ? "stop" : "up"));
    this.button.setAttribute("aria-label", label);
    this.button.title = label;
    const said = summary(this.conversation.settings);
    fill(this.settings, icon("sliders"), el("span", {}, said || t("settings")));
    this.settings.setAttribute("aria-label", said ? `${t("settings")}: ${said}` : t("settings"));
  }

  askSettings() {
    askSettings(this.conversation.settings, true, (settings) => {
      this.conversation.settings = settings;
      if (this.conversation.nodes.length) this.keep();
      this.drawComposer();
    });
  }

  openHistory() {
    const history = new History(this.app, this.conversation, () => dialog.close());
    const dialog = openDialog(t("history"), history.element,
      el("div", { class: "row end" },
        el("button", { type: "button", onclick: () => dialog.close() }, t("close"))));
  }

  send() {
    const text = this.input.value;
    if (!text.trim() || this.writing) return;
    this.input.value = "";
    this.input.fit();
    this.ask(this.conversation.leaf, text);
  }

  /** Put a message after another one, and have it answered. */
  ask(parent, text) {
    this.answer(store.append(this.conversation, parent, "user", text));
  }

  /** Have a user's message answered, beside the answers that it has. */
  answer(asked) {
    const { conversation } = this;
    const messages = store.messagesOf(conversation, asked.id);
    const node = store.append(conversation, asked.id, "assistant", "");
    const body = { model: this.model.id, messages, ...fieldsOf(conversation.settings) };
    const keep = ({ text, thought, info, error }) => {
      Object.assign(node, { text, thought, info, error });
      conversation.time = Date.now();
      this.keep();
    };
    const writing = new Writing(conversation, body, keep);
    this.keep();
    this.app.go({ conversation: conversation.id }, true);
    this.app.unsay();
    this.draw();
    this.history.draw();
    this.shown();
    this.input.focus();
    writing.run();
  }

  keep() {
    if (!store.save(this.conversation)) this.app.notify(t("full"));
  }

  // --- messages ---

  draw() {
    const path = store.branch(this.conversation);
    fill(this.messages, ...path.map((node) => this.message(node)));
    if (!path.length) {
      this.messages.append(el("div", { class: "welcome" }, el("h2", {}, this.model.id),
        el("p", {}, t("empty")),
        el("p", { class: "quiet" }, t("contextLength", { n: number(this.model.max_model_len) }))));
    }
    this.drawComposer();
  }

  message(node) {
    const isUser = node.role === "user";
    const name = el("h2", { class: "hidden" }, isUser ? t("you") : node.info?.model ?? t("answer"));
    const article = el("article", { class: node.role, "data-node": node.id }, name);
    if (isUser) {
      article.append(el("div", { class: "text" }, node.text), this.bar(node));
      return article;
    }
    const thought = el("p", {}, node.thought);
    const thoughts = el("details", { hidden: !node.thought }, el("summary", {}, t("thoughts")), thought);
    const body = el("div", { class: "markdown" });
    article.append(thoughts, body);
    if (this.writing && node.id === this.conversation.leaf) {
      this.follow(this.writing, { article, thoughts, thought, body });
      return article;
    }
    this.write(body, node.text);
    if (node.error) article.append(el("p", { class: "fault", role: "alert" }, node.error));
    article.append(this.bar(node));
    return article;
  }

  /** Write a whole answer; what stands in a block of code can be copied. */
  write(body, text) {
    const writer = markdownWriter(body);
    writer.write(text);
    writer.end();
    for (const block of body.querySelectorAll("pre")) {
      const copy = iconButton("copy", t("copyCode"), () => this.copy(block.textContent));
      const framed = el("div", { class: "code" }, copy);
      block.replaceWith(framed);
      framed.prepend(block);
    }
  }

  /** What can be done with a message, and how it came about. */
  bar(node) {
    const isUser = node.role === "user";
    const disabled = Boolean(this.writing);
    return el("div", { class: "bar" },
      iconButton("copy", t("copy"), () => this.copy(node.text)),
      isUser
        ? iconButton("edit", t("edit"), () => this.edit(node), { disabled })
        : iconButton("again", t("again"), () => this.again(node), { disabled }),
      this.versions(node),
      !isUser && el("span", { class: "info" }, describe(node.info)));
  }

  /** The ways to the other versions of a message, where there are some. */
  versions(node) {
    const all = store.versions(this.conversation, node);
    if (all.length < 2) return null;
    const place = all.indexOf(node);
    const go = (step) => {
      store.choose(this.conversation, all[place + step]);
      this.keep();
      this.draw();
      const chosen = `[data-node="${all[place + step].id}"] [data-step]:enabled`;
      const ways = [...this.messages.querySelectorAll(chosen)];
      (ways.find((each) => each.dataset.step === String(step)) ?? ways[0]).focus();
    };
    const way = (step, name, label) =>
      iconButton(name, label, () => go(step), { "data-step": step, disabled: !all[place + step] });
    const said = t("version", { n: place + 1, all: all.length });
    return [way(-1, "left", t("older")), el("span", {}, said), way(1, "right", t("newer"))];
  }

  async copy(text) {
    await copyText(text);
    this.app.notify(t("copied"));
  }

  again(node) {
    this.answer(this.conversation.nodes.find((each) => each.id === node.parent));
  }

  edit(node) {
    const article = this.messages.querySelector(`[data-node="${node.id}"]`);
    const area = textArea({ class: "input", "aria-label": t("edit") });
    area.value = node.text;
    const escape = () => {
      this.draw();
      this.messages.querySelector(`[data-node="${node.id}"] button[aria-label="${t("edit")}"]`).focus();
    };
    const submit = () => {
      if (area.value.trim()) this.ask(node.parent, area.value);
    };
    fill(article, form({ class: "edit", submit, escape, byEnter: true }, area,
      el("div", { class: "row end" },
        el("button", { type: "button", onclick: escape }, t("cancel")),
        el("button", { class: "main" }, t("send")))));
    area.fit();
    area.focus();
  }

  /** Change what is shown; where its end is in sight, it stays so. */
  atEnd(change) {
    const { scroller } = this;
    const isNear = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR;
    change();
    if (isNear) scroller.scrollTop = scroller.scrollHeight;
  }

  /** Show an answer while it is written. */
  follow(writing, { article, thoughts, thought, body }) {
    const writer = markdownWriter(body);
    const speaker = new Speaker((text) => this.app.say(text));
    const waiting = el("p", { class: "waiting" }, t("isWriting"));
    let unwritten = "";
    let frame = 0;
    const write = () => {
      frame = 0;
      this.atEnd(() => writer.write(unwritten));
      unwritten = "";
    };
    const take = (text) => {
      if (!text) return;
      waiting.remove();
      unwritten += text;
      frame ||= requestAnimationFrame(write);
    };
    article.setAttribute("aria-busy", "true");
    article.append(waiting);
    take(writing.text);
    writing.onPart = (part) => {
      take(part.text);
      speaker.add(part.text);
      if (!part.thought) return;
      thoughts.hidden = false;
      this.atEnd(() => thought.append(part.thought));
    };
    writing.onEnd = () => {
      cancelAnimationFrame(frame);
      speaker.end(writing.error);
      const focused = document.activeElement;
      this.atEnd(() => this.draw());
      this.history.draw();
      if (focused === this.button || !focused.isConnected) this.input.focus();
    };
  }
}

/** Has a screen reader say what comes, as a rule by whole sentences. */
class Speaker {
  constructor(say) {
    this.say = say;
    this.unsaid = "";
  }

  add(text) {
    this.unsaid += text;
    if (!/[.!?:;。！？；\n]/.test(text) && this.unsaid.length < SAID) return;
    const sentences = this.unsaid.match(/^.*([.!?:;]\s|[。！？；\n])/s)?.[0] ?? "";
    const said = this.unsaid.length < SAID ? sentences : this.unsaid;
    this.unsaid = this.unsaid.slice(said.length);
    this.say(said);
  }

  end(error) {
    this.say(error || this.unsaid);
  }
}
