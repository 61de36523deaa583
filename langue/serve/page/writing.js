// What a model writes, as it comes; and the answers that are being written, whoever looks on.
import { stream } from "./api.js";
import { number, t, tokens as countOfTokens } from "./words.js";

const KEPT = 2000; // milliseconds after which what has come is kept
const running = new Map(); // by the ids of conversations: a view of one may come and go meanwhile

/** The parts of what a route writes: `{text, thought, logprobs}`. What is known of the whole goes
 * into `info`, to be described. It ends early where it is stopped. ApiError where the route
 * refuses, or breaks off. */
export async function* written(path, body, signal, info) {
  const begun = performance.now();
  let first = 0;
  info.model = body.model;
  const options = { stream_options: { include_usage: true } };
  try {
    for await (const event of stream(path, { ...body, ...options }, signal)) {
      if (event.usage) info.tokens = event.usage.completion_tokens;
      const choice = (event.choices ?? event.data)[0];
      if (choice?.finish_reason) info.reason = choice.finish_reason;
      const text = choice?.delta?.content ?? choice?.text ?? "";
      const thought = choice?.delta?.reasoning_content ?? "";
      if (text || thought) first ||= performance.now();
      if (text || thought || choice?.logprobs) yield { text, thought, logprobs: choice.logprobs };
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    info.reason = "stopped";
  } finally {
    info.first = first ? (first - begun) / 1000 : null;
    info.seconds = (performance.now() - (first || begun)) / 1000;
  }
}

/** How a text came about, in one line. */
export function describe({ tokens, first, seconds, reason, model } = {}) {
  const said = [model];
  if (tokens) said.push(countOfTokens(tokens));
  if (tokens > 1 && seconds > 0) {
    said.push(t("tokensPerSecond", { n: number((tokens - 1) / seconds, 1) }));
  }
  if (first) said.push(t("firstToken", { s: number(first, 2) }));
  if (!reason) said.push(t("interrupted"));
  if (reason === "length" || reason === "stopped") said.push(t(reason));
  return said.filter(Boolean).join(" · ");
}

/** What is being written in a conversation; undefined: nothing. */
export const writingOf = (conversation) => running.get(conversation.id);

/** An answer in a conversation, as it comes. `onPart(part)` and `onEnd()` are of whoever looks on;
 * `keep(writing)` is called now and then, and at the end. */
export class Writing {
  constructor(conversation, body, keep) {
    Object.assign(this, { conversation, body, keep });
    this.text = "";
    this.thought = "";
    this.info = { model: body.model };
    this.error = "";
    this.aborter = new AbortController();
    this.leave();
    running.set(conversation.id, this);
  }

  stop() {
    this.aborter.abort();
  }

  /** Nobody looks on any more. */
  leave() {
    this.onPart = this.onEnd = () => {};
  }

  /** Write to the end. Errors are told in `error`. */
  async run() {
    let saved = performance.now();
    const { signal } = this.aborter;
    try {
      for await (const part of written("v1/chat/completions", this.body, signal, this.info)) {
        this.text += part.text;
        this.thought += part.thought;
        this.onPart(part);
        if (performance.now() - saved < KEPT) continue;
        this.keep(this);
        saved = performance.now();
      }
    } catch (error) {
      this.error = error.message;
    }
    running.delete(this.conversation.id);
    this.keep(this);
    this.onEnd();
  }
}
