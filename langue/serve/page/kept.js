// What the browser keeps, where it keeps anything: its storage may be full, or turned off.

class Kept {
  /** storage: the name of one of the browser's; to reach for it may be refused already. */
  constructor(storage) {
    this.storage = storage;
  }

  /** What is kept under a name; null: nothing. */
  read(name) {
    try {
      return window[this.storage].getItem(name);
    } catch {
      return null;
    }
  }

  /** Keep a text; false where the browser does not. */
  keep(name, text) {
    try {
      window[this.storage].setItem(name, text);
      return true;
    } catch {
      return false;
    }
  }

  /** Keep it no more. */
  forget(name) {
    if (this.read(name) !== null) window[this.storage].removeItem(name);
  }

  /** The names of all that is kept. */
  names() {
    try {
      return Object.keys(window[this.storage]);
    } catch {
      return [];
    }
  }

  /** What JSON is kept under a name; null where there is none. */
  readJson(name) {
    try {
      return JSON.parse(this.read(name));
    } catch {
      return null;
    }
  }
}

export const forGood = new Kept("localStorage");
export const forThisTab = new Kept("sessionStorage");
