/** Which rows are shown, in which order. */

import { compares, hasTexts, textOf, valueIn } from "./data.js";
import { wordCount } from "./words.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {{verdictOf: (row: number) => {verdict: string} | null}} VerdictSource */

/**
 * What a row must be to be shown; empty strings and null ask for nothing.
 * @typedef {object} Filter
 * @property {string} text every word of it stands somewhere in the row
 * @property {string} flag a flag, "good" or "failed"
 * @property {string} question
 * @property {number | null} low least confidence
 * @property {number | null} high greatest confidence
 * @property {string} verdict a verdict, "any" or "none"
 * @property {string} change "changed", "same", "first" or "second"
 */

/** A way to sort: its name, and what of a row is compared.
 * @typedef {{id: string, name: string, key: (row: number) => number | string | null}} Order */

const SEARCHED = ["file_name", "question", "text", "guess", "other_text", "error_type", "error"];
const FAILED = "failed";
const GOOD = "good";
// Greater than any score: CIDEr is at most 10.
const RANK = 100;

export class Selection {
  /** @param {Data} data @param {VerdictSource} verdicts */
  constructor(data, verdicts) {
    this.data = data;
    this.verdicts = verdicts;
    this.orders = ordersOf(data);
    /** @type {Map<string, Uint32Array>} */
    this.sorted = new Map();
    /** @type {string[] | null} */
    this.searched = null;
  }

  /** The rows that pass, sorted. @param {Filter} filter @param {string} order
   * @param {boolean} descending @returns {Uint32Array} */
  select(filter, order, descending) {
    const passes = this.tests(filter);
    return this.inOrder(order, descending).filter((row) => passes.every((test) => test(row)));
  }

  /** @param {Filter} filter @returns {((row: number) => boolean)[]} */
  tests(filter) {
    const { data, verdicts } = this;
    /** @type {((row: number) => boolean)[]} */
    const tests = [];
    const words = filter.text.toLowerCase().split(/\s+/u).filter(Boolean);
    if (words.length) {
      const texts = this.searchable();
      tests.push((row) => words.every((word) => texts[row].includes(word)));
    }
    if (filter.flag) tests.push((row) => flagOf(data, row) === filter.flag);
    if (filter.question) tests.push((row) => valueIn(data, "question", row) === filter.question);
    const { low, high } = filter;
    if (low !== null || high !== null) {
      tests.push((row) => {
        const confidence = valueIn(data, "confidence", row);
        return confidence !== null && confidence >= (low ?? 0) && confidence <= (high ?? 1);
      });
    }
    if (filter.verdict) {
      tests.push((row) => {
        const verdict = verdicts.verdictOf(row)?.verdict ?? "none";
        return filter.verdict === "any" ? verdict !== "none" : verdict === filter.verdict;
      });
    }
    if (filter.change) tests.push((row) => changeOf(data, row) === filter.change);
    return tests;
  }

  /** Every row, sorted; those without a value come last either way. Kept for the next time.
   * @param {string} id @param {boolean} descending @returns {Uint32Array} */
  inOrder(id, descending) {
    const kept = this.sorted.get(`${id} ${descending}`);
    if (kept) return kept;
    const order = this.orders.find((one) => one.id === id) ?? this.orders[0];
    const keys = Array.from({ length: this.data.count }, (_, row) => order.key(row));
    const sign = descending ? -1 : 1;
    const rows = Uint32Array.from(keys.keys()).sort((a, b) => {
      const [x, y] = [keys[a], keys[b]];
      if (x === y) return a - b;
      if (x === null || y === null) return x === null ? 1 : -1;
      return x < y ? -sign : sign;
    });
    this.sorted.set(`${id} ${descending}`, rows);
    return rows;
  }

  /** What the text filter looks through, in lower case. */
  searchable() {
    const columns = SEARCHED.filter((name) => this.data.table.rows[name]);
    this.searched ??= Array.from({ length: this.data.count }, (_, row) =>
      columns
        .map((name) => valueIn(this.data, name, row) ?? "")
        .join("\n")
        .toLowerCase(),
    );
    return this.searched;
  }
}

/** "failed", the flag of the row, or "good". @param {Data} data @param {number} row */
export function flagOf(data, row) {
  if (valueIn(data, "error_type", row) !== null) return FAILED;
  return valueIn(data, "flag", row) || GOOD;
}

/** @param {Data} data @param {number} row */
export function changeOf(data, row) {
  const side = valueIn(data, "side", row);
  if (side) return side === 1 ? "first" : "second";
  return textOf(data, row) === textOf(data, row, "other_") ? "same" : "changed";
}

/** How often each value comes, most first.
 * @param {number} count rows @param {(row: number) => string | null} value
 * @returns {[string, number][]} */
export function tally(count, value) {
  /** @type {Map<string, number>} */
  const found = new Map();
  for (let row = 0; row < count; row++) {
    const one = value(row);
    if (one !== null) found.set(one, (found.get(one) ?? 0) + 1);
  }
  return [...found].sort((a, b) => b[1] - a[1]);
}

/** @param {Data} data @returns {Order[]} */
function ordersOf(data) {
  const { rows, extra } = data.table;
  /** @type {Order[]} */
  const orders = [
    { id: "order", name: "order of the output", key: (row) => row },
    { id: "worst", name: "worst first", key: (row) => badness(data, row) },
  ];
  const columns = [
    ["confidence", "confidence"],
    ["score", data.run.score ?? "score"],
    ["logprob", "log-probability"],
    ["choice_mass", "mass on the choices"],
    ["file_name", "name"],
    ["question", "question"],
    ["text", "text"],
    ["flag", "flag"],
    ["error_type", "error"],
    ["other_confidence", "confidence of the second"],
    ["other_score", "score of the second"],
  ];
  for (const [id, name] of columns) {
    if (rows[id]) orders.push({ id, name, key: (row) => given(valueIn(data, id, row)) });
  }
  if (hasTexts(data)) {
    const words = (/** @type {number} */ row) => wordCount(textOf(data, row) ?? "");
    orders.push({ id: "length", name: "length of the text", key: words });
  }
  for (const [id, of] of [
    ["score", data.run.score ?? "score"],
    ["confidence", "confidence"],
  ]) {
    if (!compares(data) || !rows[id] || !rows[`other_${id}`]) continue;
    const gain = (/** @type {number} */ row) => {
      const [before, after] = [valueIn(data, id, row), valueIn(data, `other_${id}`, row)];
      return before === null || after === null ? null : after - before;
    };
    orders.push({ id: `gain_${id}`, name: `change in ${of}`, key: gain });
  }
  for (const { name, values } of extra) {
    const key = (/** @type {number} */ row) => {
      const value = values[row] ?? null;
      return typeof value === "object" && value !== null ? JSON.stringify(value) : value;
    };
    orders.push({ id: `extra ${name}`, name, key });
  }
  return orders;
}

/** An empty string is no value. @param {any} value */
function given(value) {
  return value === "" ? null : value;
}

/** Small for bad rows: failed ones, then flagged ones, each from the least score or confidence.
 * @param {Data} data @param {number} row */
function badness(data, row) {
  const flag = flagOf(data, row);
  const rank = flag === FAILED ? 0 : flag === GOOD || flag === "retried" ? 2 : 1;
  const logprob = valueIn(data, "logprob", row);
  const value =
    valueIn(data, "score", row) ??
    valueIn(data, "confidence", row) ??
    (logprob === null ? RANK - 1 : Math.exp(logprob));
  return rank * RANK + value;
}
