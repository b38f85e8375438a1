/** Elements of the page. Every text passes through here, and none is ever read as markup. */

/** Control characters and those that turn the direction of writing: nothing shows them, and they
 * can make a text look like another. */
const UNSEEN = /[\p{Cc}\p{Bidi_Control}\u200b\u2028\u2029\ufeff]/gu;

/** A text with its unseen characters written out. @param {string} text */
export function visible(text) {
  return text.replace(UNSEEN, (character) => {
    const code = character.charCodeAt(0);
    if (code < 32) return String.fromCharCode(0x2400 + code); // ␀ to ␟
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

/** An element with a class and children; strings become text.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {string} classes @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[Tag]} */
export function make(tag, classes, ...children) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  for (const child of children) {
    if (child !== null) element.append(typeof child === "string" ? visible(child) : child);
  }
  return element;
}

/** An element whose text may be in any language, kept apart from what stands around it.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {string} classes @param {...(Node | string | null)} children */
export function foreign(tag, classes, ...children) {
  const element = make(tag, classes, ...children);
  element.dir = "auto";
  return element;
}

/** @param {string} label @param {() => void} action @param {string} [classes] */
export function button(label, action, classes = "") {
  const element = make("button", classes, label);
  element.type = "button";
  element.addEventListener("click", action);
  return element;
}

/** The element of the page with this id.
 * @template {HTMLElement} Kind @param {string} id @param {new () => Kind} kind @returns {Kind} */
export function byId(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`the page has no ${id}`);
  return element;
}

/** A list of names and what they are. @param {Iterable<[string, Node | string]>} pairs */
export function facts(pairs) {
  const list = make("dl", "facts");
  for (const [name, value] of pairs) {
    list.append(make("dt", "", name), foreign("dd", "", value));
  }
  return list;
}

/** A bar as long as a share of 1, with the share beside it.
 * @param {number | null} share @param {string} label */
export function bar(share, label) {
  const known = share !== null;
  const element = make("span", "meter", make("span", "meter-text", known ? percent(share) : "–"));
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", `${label}: ${known ? percent(share) : "not known"}`);
  if (known) {
    const fill = make("span", "meter-fill");
    fill.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
    element.prepend(make("span", "meter-track", fill));
  }
  return element;
}

const counts = new Intl.NumberFormat("en");

/** 1234 as "1,234". @param {number} number */
export function count(number) {
  return counts.format(number);
}

/** 0.934 as "93 %", and never 100 % of what is less. @param {number} share */
export function percent(share) {
  const hundredths = share * 100;
  if (hundredths > 99 && hundredths < 100) return `${Math.floor(hundredths * 10) / 10} %`;
  return `${Math.round(hundredths)} %`;
}

/** A number to three places, without needless zeros. @param {number} number */
export function decimals(number) {
  return String(Number(number.toFixed(Math.abs(number) < 0.01 ? 6 : 3)));
}
