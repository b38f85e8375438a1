/** The controls above the list: what they ask for, and which of them there are. */

import { compares, hasTexts, valueIn } from "./data.js";
import { byId, count, visible } from "./dom.js";
import { flagOf, tally } from "./selection.js";

/** @typedef {import("./data.js").Data} Data */

// Where the details of a row lie over the list, and filters are folded: as in widths.css.
export const NARROW = window.matchMedia("(max-width: 56rem)");
const MOST_QUESTIONS = 200;
const LONGEST_OPTION = 70;
const TYPING = 150; // milliseconds of silence after which a text is looked for

export class Controls {
  /** @param {Data} data @param {import("./selection.js").Order[]} orders @param {() => void} changed */
  constructor(data, orders, changed) {
    this.text = byId("filter-text", HTMLInputElement);
    this.low = byId("filter-low", HTMLInputElement);
    this.high = byId("filter-high", HTMLInputElement);
    this.descending = byId("descending", HTMLButtonElement);
    this.order = byId("order", HTMLSelectElement);
    /** @type {Record<string, HTMLSelectElement>} */
    this.selects = Object.fromEntries(
      ["flag", "question", "verdict", "change"].map((name) => [
        name,
        byId(`filter-${name}`, HTMLSelectElement),
      ]),
    );
    byId("more", HTMLDetailsElement).open = !NARROW.matches;
    this.fill(data);
    for (const { id, name } of orders) this.order.append(new Option(visible(name), id));
    this.listen(changed);
  }

  /** Offers what the rows have; a filter that would tell nothing apart is left out.
   * @param {Data} data */
  fill(data) {
    offer(
      this.selects.flag,
      tally(data.count, (row) => flagOf(data, row)),
    );
    const questions = tally(data.count, (row) => valueIn(data, "question", row));
    offer(this.selects.question, questions.slice(0, MOST_QUESTIONS));
    shown(this.selects.verdict, hasTexts(data));
    shown(this.selects.change, compares(data));
    shown(this.low, data.table.rows.confidence !== undefined);
  }

  /** @param {() => void} changed */
  listen(changed) {
    byId("controls", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
    let timer = 0;
    this.text.addEventListener("input", () => {
      clearTimeout(timer);
      timer = window.setTimeout(changed, TYPING);
    });
    for (const control of [this.low, this.high, this.order, ...Object.values(this.selects)]) {
      control.addEventListener("change", changed);
    }
    this.descending.addEventListener("click", () => {
      this.turn(!this.isDescending());
      changed();
    });
    byId("worst", HTMLButtonElement).addEventListener("click", () => {
      this.sortBy("worst");
      changed();
    });
    byId("clear", HTMLButtonElement).addEventListener("click", () => {
      this.reset();
      changed();
    });
  }

  /** @returns {import("./selection.js").Filter} */
  filter() {
    const { flag, question, verdict, change } = this.selects;
    return {
      text: this.text.value,
      flag: flag.value,
      question: question.value,
      low: hundredths(this.low),
      high: hundredths(this.high),
      verdict: verdict.value,
      change: change.value,
    };
  }

  /** Sorts by an order, smallest first. @param {string} order */
  sortBy(order) {
    this.order.value = order;
    this.turn(false);
  }

  /** @param {boolean} descending */
  turn(descending) {
    this.descending.setAttribute("aria-pressed", String(descending));
  }

  isDescending() {
    return this.descending.getAttribute("aria-pressed") === "true";
  }

  reset() {
    for (const control of [this.text, this.low, this.high, ...Object.values(this.selects)]) {
      control.value = "";
    }
  }
}

/** @param {HTMLSelectElement} select @param {[string, number][]} values */
function offer(select, values) {
  for (const [value, n] of values) {
    const text = visible(value);
    const short = text.length > LONGEST_OPTION ? `${text.slice(0, LONGEST_OPTION)}…` : text;
    select.append(new Option(`${short} (${count(n)})`, value));
  }
  shown(select, values.length > 1);
}

/** Shows a control with its label, or neither. @param {HTMLElement} control @param {boolean} there */
function shown(control, there) {
  const field = control.closest(".field");
  if (field instanceof HTMLElement) field.hidden = !there;
}

/** A share of 1 from a field in percent; null when it is empty. @param {HTMLInputElement} field */
function hundredths(field) {
  return field.value === "" || Number.isNaN(field.valueAsNumber) ? null : field.valueAsNumber / 100;
}
