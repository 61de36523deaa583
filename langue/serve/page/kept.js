// What the browser keeps, where it keeps anything: its storage may be full, or turned off.

/** What is kept under a name; null: nothing. */
export function read(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Keep a text; false where the browser does not. */
export function keep(name, text) {
  try {
    localStorage.setItem(name, text);
    return true;
  } catch {
    return false;
  }
}

/** Keep it no more. */
export function forget(name) {
  if (read(name) !== null) localStorage.removeItem(name);
}

/** The names of all that is kept. */
export function names() {
  try {
    return Object.keys(localStorage);
  } catch {
    return [];
  }
}

/** What JSON is kept under a name; null where there is none. */
export function readJson(name) {
  try {
    return JSON.parse(read(name));
  } catch {
    return null;
  }
}
