// Answers that are being written, whoever looks on: a view may come and go meanwhile.
import { stream } from "./api.js";
import { number, t } from "./words.js";

const KEPT = 2000; // milliseconds after which what has come is kept
const running = new Map(); // by what they are written into: a conversation's id, or a view's

/** What is being written into it; undefined: nothing. */
export const writingOf = (place) => running.get(place);

/** One answer as it comes. `onText(part, choice)` and `onEnd()` are of whoever looks on; `keep` is
 * called now and then, and at the end. */
export class Writing {
  constructor(place, path, body, keep = () => {}) {
    Object.assign(this, { place, path, body, keep });
    this.text = "";
    this.info = { model: body.model };
    this.error = "";
    this.aborter = new AbortController();
    this.onText = this.onEnd = () => {};
    running.set(place, this);
  }

  stop() {
    this.aborter.abort();
  }

  /** Write to the end. Errors are told in `error`. */
  async run() {
    const begun = performance.now();
    let first = 0;
    let saved = begun;
    const body = { ...this.body, stream_options: { include_usage: true } };
    try {
      for await (const event of stream(this.path, body, this.aborter.signal)) {
        const now = performance.now();
        const choice = event.choices[0];
        const part = choice?.delta?.content ?? choice?.text ?? "";
        if (part) first ||= now;
        this.text += part;
        if (choice?.finish_reason) this.info.reason = choice.finish_reason;
        if (event.usage) this.info.tokens = event.usage.completion_tokens;
        if (part || choice?.logprobs) this.onText(part, choice);
        if (now - saved < KEPT) continue;
        this.keep(this);
        saved = now;
      }
    } catch (error) {
      if (error.name === "AbortError") this.info.reason = "stopped";
      else this.error = error.message;
    }
    this.info.first = first ? (first - begun) / 1000 : null;
    this.info.seconds = (performance.now() - (first || begun)) / 1000;
    running.delete(this.place);
    this.keep(this);
    this.onEnd();
  }
}

/** How an answer came about, in one line. */
export function describe(info) {
  if (!info) return "";
  const { tokens, first, seconds, reason, model } = info;
  const said = [model];
  if (tokens) said.push(t("tokens", { n: number(tokens) }));
  if (tokens > 1 && seconds > 0) {
    said.push(t("tokensPerSecond", { n: number((tokens - 1) / seconds, 1) }));
  }
  if (first) said.push(t("firstToken", { s: number(first, 2) }));
  if (!reason) said.push(t("interrupted"));
  if (reason === "length" || reason === "stopped") said.push(t(reason));
  return said.filter(Boolean).join(" · ");
}
