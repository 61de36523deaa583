// The conversations that are kept, beside the one that is shown or in a window over it.
import { download, el, fill, iconButton } from "./dom.js";
import * as store from "./store.js";
import { isolated, t } from "./words.js";
import { writingOf } from "./writing.js";

export class History {
  /** current: the conversation that is shown. leave: called before another one is. */
  constructor(app, current, leave = () => {}) {
    Object.assign(this, { app, current, leave });
    this.element = el("nav", { class: "history", "aria-label": t("history") });
    this.draw();
  }

  draw() {
    const kept = store.conversations();
    fill(this.element,
      el("button", { type: "button", class: "new", onclick: () => this.open("") }, t("new")),
      kept.length > 0 && el("ul", {}, kept.map((each) => this.entry(each))),
      el("p", { class: "quiet small" }, t("keptHere")),
      kept.length > 0 && el("button", { type: "button", class: "quiet", onclick: () => this.export() },
        t("export")));
  }

  entry(conversation) {
    const title = conversation.title || t("untitled");
    const isCurrent = conversation.id === this.current.id;
    const label = t("delete", { title: isolated(title) });
    return el("li", {},
      el("button", { type: "button", class: "entry", "aria-current": isCurrent && "true",
        onclick: () => this.open(conversation.id) }, title),
      iconButton("close", label, () => this.delete(conversation)));
  }

  open(conversation) {
    this.leave();
    this.app.go({ conversation });
  }

  delete(conversation) {
    writingOf(conversation)?.stop();
    store.remove(conversation.id);
    const undo = () => {
      store.save(conversation);
      this.draw();
    };
    const title = isolated(conversation.title || t("untitled"));
    this.app.notify(t("deleted", { title }), t("undo"), undo);
    if (conversation.id === this.current.id) {
      this.open("");
      return;
    }
    this.draw();
    this.element.querySelector("button").focus();
  }

  export() {
    const kept = store.conversations();
    download("conversations.jsonl", store.asJsonLines(kept), "application/jsonl");
    this.app.notify(t("exported", { n: kept.length }));
  }
}
