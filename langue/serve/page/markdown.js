// A model's Markdown as elements, while it comes. What it wrote is hostile: only text reaches the
// document, links lead to the web or to mail, pictures are links to themselves, and no class of
// the page's own can be borrowed.
import * as smd from "./vendor/smd.min.js";

const SAFE = new Set(["http:", "https:", "mailto:"]);
const SHIFT = 2; // the levels of headings above an answer's own
const DEEPEST = 12; // elements in one another; further ones are left out, and their text is not
// Characters that wait to become something, as the marks of a rule or an address. The parser takes
// time by their square: it begins anew where there are more.
const MOST_WAITING = 2000;
const SLICES = /.{1,500}/gsu; // in which a text is read, to see how many wait; no character is split
const MOST_ELEMENTS = 5000; // which a browser lays out without a halt; what follows stays plain text

/** Where a link may lead; null: nowhere. */
function safeAddress(text) {
  try {
    const url = new URL(text);
    return SAFE.has(url.protocol) ? url.href : null;
  } catch {
    return null; // also an address within this server
  }
}

/** Writes Markdown into `root`: `write(text)` as it comes, then `end()`. */
export function markdownWriter(root) {
  const made = { levels: [], elements: 0 };
  const begin = () => smd.parser(safeRenderer(root, made));
  let parser = begin();
  let plain = null;
  const end = () => smd.parser_end(parser);
  const write = (text) => {
    for (const slice of text.match(SLICES) ?? []) {
      if (plain) {
        plain.append(slice);
        continue;
      }
      smd.parser_write(parser, slice);
      if (made.elements < MOST_ELEMENTS && parser.pending.length < MOST_WAITING) continue;
      end();
      parser = begin();
      if (made.elements >= MOST_ELEMENTS) plain = root.appendChild(plainText());
    }
  };
  return { write, end };
}

function plainText() {
  const element = document.createElement("p");
  element.className = "plain";
  return element;
}

/** The library's renderer, which makes elements, with all that is not safe taken out of it. made:
 * the levels of the headings so far, and how many elements there are. */
function safeRenderer(root, made) {
  const renderer = smd.default_renderer(root);
  const { add_token: add, set_attr: set } = renderer;
  renderer.add_token = (data, type) => {
    if (data.index >= DEEPEST) {
      data.nodes[data.index + 1] = data.nodes[data.index];
      data.index += 1;
      return;
    }
    add(data, type);
    made.elements += 1;
    const element = data.nodes[data.index];
    const other = substitute(element, type, made.levels);
    if (other !== element) {
      element.replaceWith(other);
      data.nodes[data.index] = other;
    }
  };
  renderer.set_attr = (data, type, value) => {
    if (data.index > DEEPEST) return;
    const node = data.nodes[data.index];
    if (type === smd.HREF) link(node, value);
    else if (type === smd.SRC) link(node, value, true);
    else if (type === smd.LANG) node.dataset.language = value;
    else if (type === smd.CHECKED) node.textContent = "☑";
    else set(data, type, value);
  };
  return renderer;
}

/** The element that stands for one of the library's. */
function substitute(made, type, levels) {
  if (type === smd.IMAGE) return document.createElement("a");
  if (type === smd.CHECKBOX) {
    const box = document.createElement("span");
    box.textContent = "☐";
    return box;
  }
  if (type >= smd.HEADING_1 && type <= smd.HEADING_6) {
    const asked = Number(made.tagName[1]);
    while (levels.length && levels.at(-1) >= asked) levels.pop();
    levels.push(asked); // no level is left out below another
    return document.createElement(`h${Math.min(6, SHIFT + levels.length)}`);
  }
  const scrolled = made.tagName === "TABLE" ? made : made.closest?.("pre");
  if (scrolled) scrolled.tabIndex = 0; // so that keys reach what is cut off
  return made;
}

function link(node, value, named = false) {
  const address = safeAddress(value);
  if (named && !node.textContent) node.textContent = value; // a picture without words
  if (address === null) return;
  node.href = address;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
}
