// A conversation: its messages, what is written to be sent, and the conversations beside it.
import { copyText, download, el, fill, icon, iconButton, isEnter, textArea } from "./dom.js";
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
    this.history = el("nav", { class: "history", "aria-label": t("history") });
    this.element = el("div", { class: "chat" }, this.history,
      el("div", { class: "talk" }, this.scroller, this.composer()));
    this.draw();
    this.drawHistory(this.history);
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
    const writing = writingOf(this.conversation.id);
    if (writing) writing.onText = writing.onEnd = () => {};
  }

  // --- what is sent ---

  composer() {
    this.input = textArea({ class: "input", placeholder: t("words"), "aria-label": t("words") });
    this.input.addEventListener("keydown", (event) => {
      if (!isEnter(event) || event.shiftKey) return;
      event.preventDefault();
      this.send();
    });
    this.button = el("button", { class: "send" });
    this.settings = el("button", { type: "button", class: "quiet", onclick: () => this.askSettings() });
    const onsubmit = (event) => {
      event.preventDefault();
      if (writingOf(this.conversation.id)) writingOf(this.conversation.id).stop();
      else this.send();
    };
    const onkeydown = (event) => {
      if (event.key === "Escape") writingOf(this.conversation.id)?.stop();
    };
    return el("form", { class: "composer", onsubmit, onkeydown },
      el("div", { class: "box" }, this.input, this.button),
      el("div", { class: "under" }, this.settings,
        el("button", { type: "button", class: "quiet narrow", onclick: () => this.openHistory() },
          icon("list"), t("history"))));
  }

  drawComposer() {
    const isBusy = Boolean(writingOf(this.conversation.id));
    const label = t(isBusy ? "stop" : "send");
    fill(this.button, icon(isBusy ? "stop" : "up"));
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

  send() {
    const text = this.input.value;
    if (!text.trim() || writingOf(this.conversation.id)) return;
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
    const { system } = conversation.settings;
    const turns = store.branch(conversation, asked.id);
    const messages = turns.map(({ role, text }) => ({ role, content: text }));
    if (system) messages.unshift({ role: "system", content: system });
    const node = store.append(conversation, asked.id, "assistant", "");
    const body = { model: this.model.id, messages, ...fieldsOf(conversation.settings) };
    const keep = ({ text, info, error }) => {
      Object.assign(node, { text, info, error });
      conversation.time = Date.now();
      if (!store.save(conversation)) this.app.notify(t("full"));
    };
    const writing = new Writing(conversation.id, "v1/chat/completions", body, keep);
    this.keep();
    this.app.go({ conversation: conversation.id }, true);
    this.app.unsay();
    this.draw();
    this.drawHistory(this.history);
    this.scroller.scrollTop = this.scroller.scrollHeight;
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
    const body = el("div", { class: isUser ? "text" : "markdown" });
    const bar = el("div", { class: "bar" });
    const name = el("h2", { class: "hidden" }, isUser ? t("you") : node.info?.model ?? t("answer"));
    const article = el("article", { class: node.role, "data-node": node.id }, name, body, bar);
    const writing = writingOf(this.conversation.id);
    if (!isUser && writing && node.id === this.conversation.leaf) {
      this.follow(writing, article, body);
      return article;
    }
    if (isUser) body.textContent = node.text;
    else writeWhole(body, node.text);
    if (node.error) body.append(el("p", { class: "fault", role: "alert" }, node.error));
    this.drawBar(bar, node);
    return article;
  }

  drawBar(bar, node) {
    const all = store.versions(this.conversation, node);
    const place = all.indexOf(node);
    const go = (step) => {
      store.choose(this.conversation, all[place + step]);
      this.keep();
      this.draw();
      const steps = `[data-node="${all[place + step].id}"] [data-step]:enabled`;
      const ways = [...this.messages.querySelectorAll(steps)];
      (ways.find((each) => each.dataset.step === String(step)) ?? ways[0]).focus();
    };
    const step = (by, name, label) =>
      iconButton(name, label, () => go(by), { "data-step": by, disabled: !all[place + by] });
    const disabled = Boolean(writingOf(this.conversation.id));
    bar.append(
      iconButton("copy", t("copy"), () => this.copy(node.text)),
      node.role === "user"
        ? iconButton("edit", t("edit"), () => this.edit(node), { disabled })
        : iconButton("again", t("again"), () => this.again(node), { disabled }),
    );
    if (all.length > 1) {
      const said = t("version", { n: place + 1, all: all.length });
      bar.append(step(-1, "left", t("older")), el("span", {}, said), step(1, "right", t("newer")));
    }
    if (node.role !== "user") bar.append(el("span", { class: "info" }, describe(node.info)));
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
    const cancel = () => {
      this.draw();
      this.messages.querySelector(`[data-node="${node.id}"] button[aria-label="${t("edit")}"]`).focus();
    };
    const onsubmit = (event) => {
      event.preventDefault();
      if (area.value.trim()) this.ask(node.parent, area.value);
    };
    const onkeydown = (event) => {
      if (event.key === "Escape") cancel();
      if (isEnter(event) && !event.shiftKey) onsubmit(event);
    };
    fill(article, el("form", { class: "edit", onsubmit, onkeydown }, area,
      el("div", { class: "row end" },
        el("button", { type: "button", onclick: cancel }, t("cancel")),
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
  follow(writing, article, body) {
    const writer = markdownWriter(body);
    let waiting = writing.text;
    let frame = 0;
    let unsaid = "";
    const flush = () => {
      frame = 0;
      this.atEnd(() => writer.write(waiting));
      waiting = "";
    };
    article.setAttribute("aria-busy", "true");
    body.append(el("p", { class: "waiting" }, t("isWriting")));
    writing.onText = (part) => {
      body.querySelector(":scope > .waiting")?.remove();
      waiting += part;
      frame ||= requestAnimationFrame(flush);
      unsaid += part;
      if (!/[.!?:;。！？；\n]/.test(part) && unsaid.length < SAID) return;
      const whole = unsaid.length < SAID ? unsaid.match(/^.*([.!?:;]\s|[。！？；\n])/s)?.[0] : unsaid;
      if (!whole) return;
      this.app.say(whole);
      unsaid = unsaid.slice(whole.length);
    };
    writing.onEnd = () => {
      cancelAnimationFrame(frame);
      this.app.say(writing.error || unsaid);
      const focused = document.activeElement;
      this.atEnd(() => this.draw());
      this.drawHistory(this.history);
      if (focused === this.button || !focused.isConnected) this.input.focus();
    };
    if (waiting) writing.onText("");
  }

  // --- the conversations beside it ---

  drawHistory(nav, then = () => {}) {
    const open = (conversation) => {
      then();
      this.app.go({ conversation });
    };
    const rows = store.conversations().map((each) => {
      const title = each.title || t("untitled");
      const isThis = each.id === this.conversation.id;
      return el("li", {},
        el("button", { type: "button", class: "entry", "aria-current": isThis && "true",
          onclick: () => open(each.id) }, title),
        iconButton("close", t("delete", { title }), () => this.delete(each, nav, then)));
    });
    fill(nav,
      el("button", { type: "button", class: "new", onclick: () => open("") }, t("new")),
      el("ul", {}, rows),
      rows.length > 0 && el("button", { type: "button", class: "quiet", onclick: () => this.export() },
        t("export")));
  }

  delete(conversation, nav, then) {
    writingOf(conversation.id)?.stop();
    store.remove(conversation.id);
    const undo = () => {
      store.save(conversation);
      this.drawHistory(nav, then);
    };
    const title = conversation.title || t("untitled");
    this.app.notify(t("deleted", { title }), t("undo"), undo);
    if (conversation.id === this.conversation.id) {
      then();
      this.app.go({ conversation: "" });
      return;
    }
    this.drawHistory(nav, then);
    nav.querySelector("button").focus();
  }

  export() {
    const kept = store.conversations();
    download("conversations.jsonl", store.asJsonLines(kept), "application/jsonl");
    this.app.notify(t("exported", { n: kept.length }));
  }

  openHistory() {
    const nav = el("nav", { class: "list", "aria-label": t("history") });
    const dialog = openDialog(t("history"), nav,
      el("div", { class: "row end" },
        el("button", { type: "button", onclick: () => dialog.close() }, t("close"))));
    this.drawHistory(nav, () => dialog.close());
  }
}

function writeWhole(body, text) {
  const writer = markdownWriter(body);
  writer.write(text);
  writer.end();
}
