// Conversations, kept in this browser alone. Each is a tree: to edit a message or to have an answer
// written again begins a branch beside the old one, and nothing is lost.
import { forGood } from "./kept.js";

const PREFIX = "langue.conversation.";

const newId = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;

/** One without messages. A message is `{id, parent, role, text}`, an answer has `thought`, `info`
 * and `error` too. */
export function newConversation(settings) {
  return { id: newId(), title: "", time: Date.now(), settings, nodes: [], leaf: null };
}

/** All that are kept, the latest first. */
export function conversations() {
  const ids = forGood.names().filter((name) => name.startsWith(PREFIX));
  const found = ids.map((name) => load(name.slice(PREFIX.length))).filter(Boolean);
  return found.sort((one, other) => other.time - one.time);
}

/** One of them; null where it is not kept, or is none. */
export function load(id) {
  const found = forGood.readJson(PREFIX + id);
  return Array.isArray(found?.nodes) ? found : null;
}

/** Keep it; false where the browser does not. */
export function save(conversation) {
  return forGood.keep(PREFIX + conversation.id, JSON.stringify(conversation));
}

export function remove(id) {
  forGood.forget(PREFIX + id);
}

/** The messages from the first to the leaf in use. */
export function branch(conversation, leaf = conversation.leaf) {
  const byId = new Map(conversation.nodes.map((node) => [node.id, node]));
  const path = [];
  for (let node = byId.get(leaf); node && path.length < byId.size; node = byId.get(node.parent)) {
    path.unshift(node);
  }
  return path;
}

/** A new message after another one (null: the first). It is the leaf from now on. */
export function append(conversation, parent, role, text) {
  const node = { id: newId(), parent, role, text };
  conversation.nodes.push(node);
  conversation.leaf = node.id;
  conversation.time = Date.now();
  if (!conversation.title && role === "user") conversation.title = text.trim().slice(0, 80);
  return node;
}

/** The versions of a message, itself among them. */
export function versions(conversation, node) {
  return conversation.nodes.filter((each) => each.parent === node.parent);
}

/** Go to a version of a message, and to the latest of what followed it. */
export function choose(conversation, node) {
  let leaf = node;
  for (;;) {
    const next = conversation.nodes.filter((each) => each.parent === leaf.id).at(-1);
    if (!next) break;
    leaf = next;
  }
  conversation.leaf = leaf.id;
}

/** What a model is sent of it: the system prompt, where there is one, and the messages to a leaf. */
export function messagesOf(conversation, leaf = conversation.leaf) {
  const { system } = conversation.settings;
  const turns = branch(conversation, leaf).map(({ role, text }) => ({ role, content: text }));
  return system ? [{ role: "system", content: system }, ...turns] : turns;
}

/** JSON Lines of what a chat is trained on: `{"messages": [{"role", "content"}, ...]}`. */
export function asJsonLines(kept) {
  const lines = kept.map((each) => JSON.stringify({ messages: messagesOf(each), title: each.title }));
  return lines.map((line) => `${line}\n`).join("");
}
