// The server's routes: JSON in, JSON or a stream of events out.
import { forThisTab } from "./kept.js";
import { t, told } from "./words.js";

const KEY = "langue.key";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The API key, kept until the tab is closed; where the browser keeps nothing, until it is left. */
export const key = {
  value: forThisTab.read(KEY) ?? "",
  set(value) {
    this.value = value;
    forThisTab.keep(KEY, value);
  },
};

async function ask(path, body, signal) {
  const headers = key.value ? { Authorization: `Bearer ${key.value}` } : {};
  const options = { headers, signal, cache: "no-store", credentials: "omit" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, t("unreachable"));
  }
  if (answer.ok) return answer;
  const found = await answer.json().catch(() => ({}));
  throw new ApiError(answer.status, told(found.error) ?? `HTTP ${answer.status}`);
}

/** What a route answers. ApiError where it refuses. */
export async function call(path, body, signal) {
  return (await ask(path, body, signal)).json();
}

/** The events of a route that streams, until its end. ApiError where it refuses, or breaks off. */
export async function* stream(path, body, signal) {
  const answer = await ask(path, { ...body, stream: true }, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new ApiError(0, t("broken"));
    });
    if (done) throw new ApiError(0, t("broken"));
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.slice(event.indexOf("data: ") + 6);
      if (data === "[DONE]") return;
      const found = JSON.parse(data);
      if (found.error) throw new ApiError(0, told(found.error));
      yield found;
    }
  }
}
