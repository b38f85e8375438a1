/** What a person says about rows, kept in the browser under the token of their output. */

import { textOf, valueIn } from "./data.js";

/** @typedef {import("./data.js").Data} Data */

/**
 * A verdict, as it is exported.
 * @typedef {object} Verdict
 * @property {string} file_name
 * @property {string} [question]
 * @property {string} [question_id]
 * @property {number} [occurrence]
 * @property {string} text what was shown
 * @property {"right" | "wrong" | "corrected"} verdict
 * @property {string | null} label the right text; null where it is not known
 * @property {string} output the token of the output
 */

/** @type {("question" | "question_id" | "occurrence")[]} */
const IDENTITY = ["question", "question_id", "occurrence"];

export class Verdicts {
  /** @param {Data} data */
  constructor(data) {
    this.data = data;
    this.token = data.run.outputs[0].token;
    this.place = `blip2cli:verdicts:${this.token}`;
    /** Whether the browser keeps them. */
    this.kept = true;
    /** @type {Map<string, Verdict>} */
    this.byRow = new Map();
    this.load();
  }

  /** Reads what the browser has; another window may have added to it. */
  load() {
    try {
      const stored = JSON.parse(localStorage.getItem(this.place) ?? "{}");
      this.byRow = new Map(Object.entries(stored));
    } catch {
      this.kept = false; // no storage for this page: they last as long as the page is open
    }
  }

  /** Whether there is a text to judge. @param {number} row */
  canJudge(row) {
    return this.data.run.task !== "embed" && this.shown(row) !== null;
  }

  /** @param {number} row @returns {Verdict | null} */
  verdictOf(row) {
    const found = this.byRow.get(this.key(row));
    // An output may have been gone on with: a verdict is about the text that was shown.
    return found && found.text === this.shown(row) ? found : null;
  }

  /** Keeps a verdict about a row; null takes it back.
   * @param {number} row @param {Verdict["verdict"] | null} verdict @param {string} [correction] */
  judge(row, verdict, correction) {
    const text = this.shown(row);
    if (text === null) return;
    if (this.kept) this.load();
    if (verdict === null) {
      this.byRow.delete(this.key(row));
    } else {
      const label = { right: text, wrong: null, corrected: correction ?? "" }[verdict];
      this.byRow.set(this.key(row), {
        ...this.identity(row),
        text,
        verdict,
        label,
        output: this.token,
      });
    }
    this.store();
  }

  store() {
    try {
      localStorage.setItem(this.place, JSON.stringify(Object.fromEntries(this.byRow)));
    } catch {
      this.kept = false;
    }
  }

  /** All of this output as JSON lines, in the order in which they were given first. */
  exported() {
    return [...this.byRow.values()].map((one) => `${JSON.stringify(one)}\n`).join("");
  }

  /** How many there are of each verdict. @returns {Record<Verdict["verdict"], number>} */
  counts() {
    const counts = { right: 0, wrong: 0, corrected: 0 };
    for (const { verdict } of this.byRow.values()) counts[verdict]++;
    return counts;
  }

  /** @param {number} row @returns {string | null} */
  shown(row) {
    if (valueIn(this.data, "error_type", row) !== null) return null;
    // Rows that only the second output has are not about the first.
    return valueIn(this.data, "side", row) === 2 ? null : textOf(this.data, row);
  }

  /** @param {number} row @returns {Pick<Verdict, "file_name" | "question" | "question_id" | "occurrence">} */
  identity(row) {
    const there = IDENTITY.map((name) => [name, valueIn(this.data, name, row)]);
    return {
      file_name: valueIn(this.data, "file_name", row),
      ...Object.fromEntries(there.filter(([, value]) => value !== null)),
    };
  }

  /** @param {number} row */
  key(row) {
    return JSON.stringify(this.identity(row));
  }
}
