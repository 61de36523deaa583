// Elements, made without HTML: whatever a model wrote becomes text, and never markup.

/** An element: its attributes (`on...` are listeners), then its children. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...present(children));
  return made;
}

/** Give an element these children, in the place of those that it has. */
export function fill(parent, ...children) {
  parent.replaceChildren(...present(children));
}

/** Without those that are not there: null, false and the empty text. */
function present(children) {
  return children.flat().filter((child) => child != null && child !== false && child !== "");
}

const PICTURES = {
  sun: "M12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6 7 7M17 17l1.4 1.4M18.4 5.6 17 7M7 17l-1.4 1.4M16 12a4 4 0 1 1-8 0 4 4 0 0 1 8 0Z",
  moon: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10Z",
  auto: "M4 5h16v11H4ZM9 20h6M12 16v4",
  key: "M12 15a4 4 0 1 1-8 0 4 4 0 0 1 8 0ZM11 12l8-8M15 8l3 3M18 5l2 2",
  list: "M4 7h16M4 12h16M4 17h16",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  edit: "m5 16-1 4 4-1L19 8l-3-3ZM14 7l3 3",
  again: "M19 12a7 7 0 1 1-2-5l2 2M19 4v5h-5",
  left: "m14 7-5 5 5 5",
  right: "m10 7 5 5-5 5",
  close: "m7 7 10 10M17 7 7 17",
  up: "M12 19V6M6 11.5 12 5.5l6 6",
  stop: "M8 8h8v8H8z",
  sliders: "M4 8h9M17 8h3M15 6v4M4 16h3M11 16h9M9 14v4",
};

/** A small picture beside words, or in the place of them: then the button has a label. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", PICTURES[name]);
  svg.append(path);
  return svg;
}

/** A button that shows a picture alone. */
export function iconButton(name, label, onclick, more = {}) {
  const attributes = { type: "button", class: "icon", "aria-label": label, title: label, onclick };
  return el("button", { ...attributes, ...more }, icon(name));
}

/** A control beneath its name; `hint` stands behind the name. */
export function field(label, control, hint = "") {
  const name = el("span", { class: "name" }, label, hint && el("small", {}, hint));
  return el("label", { class: "field" }, name, control);
}

/** A form. `submit` is called in the place of the browser's own sending: also by Ctrl+Enter, and
 * where `byEnter` says so by Enter in a text area; `escape` by Escape. */
export function form({ submit, escape, byEnter = false, ...attributes }, ...children) {
  const onsubmit = (event) => {
    event.preventDefault();
    submit();
  };
  const onkeydown = (event) => {
    if (event.key === "Escape") escape?.();
    const isPlain = byEnter && event.target.localName === "textarea" && !event.shiftKey;
    if (!isEnter(event) || !(isPlain || event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    made.requestSubmit();
  };
  const made = el("form", { ...attributes, onsubmit, onkeydown }, ...children);
  return made;
}

/** Enter, where it is not a part of a word that is being composed (as in Chinese). */
function isEnter(event) {
  return event.key === "Enter" && !event.isComposing && event.keyCode !== 229;
}

/** A text area that is as high as its text. */
export function textArea(attributes) {
  const area = el("textarea", { rows: 1, ...attributes });
  const fit = () => {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
  };
  area.addEventListener("input", fit);
  area.fit = fit;
  return area;
}

/** Put a text on the clipboard; over plain HTTP from elsewhere only the old way is open. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = el("textarea", { readonly: true });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Give a text to be saved as a file. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
