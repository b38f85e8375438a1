/** One row as it stands in the list. */

import { compares, textOf, valueIn } from "./data.js";
import { bar, foreign, make, percent, visible } from "./dom.js";
import { flagOf } from "./selection.js";
import { differences } from "./words.js";

/** What drawing a row takes.
 * @typedef {object} Context
 * @property {import("./data.js").Data} data
 * @property {import("./thumbnail.js").Thumbnails} thumbnails
 * @property {import("./verdicts.js").Verdicts} verdicts */

const BOX = 96;
const SMALL_BOX = 56;
const SMALL_NEIGHBOURS = 6;
/** @type {Record<string, string>} */
export const VERDICT_SIGNS = { right: "✓", wrong: "✕", corrected: "✎" };

/** @param {Context} context @param {number} row @returns {HTMLElement} */
export function drawRow(context, row) {
  const { data, thumbnails, verdicts } = context;
  const name = String(valueIn(data, "file_name", row));
  const verdict = verdicts.verdictOf(row);
  const body = make("div", "row-body", head(data, row, name), ...texts(data, row));
  if (data.run.task === "embed") body.append(neighbourStrip(context, row));
  const side = make("div", "row-side");
  if (data.table.rows.confidence) side.append(...bars(data, row));
  if (data.table.rows.score) side.append(scoreOf(data, row));
  const image = thumbnails.draw(valueIn(data, "image", row) ?? -1, BOX, null);
  const sign = make("span", "row-verdict", verdict ? VERDICT_SIGNS[verdict.verdict] : "");
  sign.dataset.verdict = verdict?.verdict ?? "";
  const element = make("div", "row", make("div", "row-image", image), body, side, sign);
  element.setAttribute("aria-label", spoken(context, row, name));
  return element;
}

/** @param {Context["data"]} data @param {number} row @param {string} name */
function head(data, row, name) {
  const line = make("div", "row-head", foreign("span", "row-name", name));
  line.append(...chips(data, row));
  return line;
}

/** The flag of a row, in words. @param {Context["data"]} data @param {number} row */
export function chips(data, row) {
  const flag = flagOf(data, row);
  if (flag === "good") return [];
  const chip = make("span", "chip", flag);
  chip.dataset.kind = flag === "failed" ? "bad" : flag === "retried" ? "quiet" : "warn";
  return [chip];
}

/** The question, and what the outputs say. @param {Context["data"]} data @param {number} row */
function texts(data, row) {
  const question = valueIn(data, "question", row);
  const lines = question === null ? [] : [foreign("div", "row-question", question)];
  return data.run.task === "embed" && !failed(data, row) ? lines : [...lines, ...said(data, row)];
}

/** The text of a row; of two outputs both, with the words that differ marked.
 * @param {Context["data"]} data @param {number} row @returns {HTMLElement[]} */
export function said(data, row) {
  if (!compares(data)) return [line(data, row, "", null)];
  const [first, second] = [textOf(data, row), textOf(data, row, "other_")];
  const marked = first !== null && second !== null && first !== second;
  const [a, b] = marked ? differences(first, second) : [null, null];
  return [line(data, row, "", a), line(data, row, "other_", b)];
}

/** @param {Context["data"]} data @param {number} row @param {string} prefix
 * @param {import("./words.js").Piece[] | null} pieces @returns {HTMLElement} */
function line(data, row, prefix, pieces) {
  const text = textOf(data, row, prefix);
  const element = make("div", "row-text");
  if (compares(data)) element.append(make("span", "side-mark", prefix ? "B" : "A"));
  if (text === null) {
    element.classList.add("absent");
    element.append(absence(data, row, prefix));
  } else if (pieces === null) {
    element.append(foreign("span", "", text || "(empty text)"));
    if (valueIn(data, `${prefix}text`, row) === null) element.classList.add("guess");
  } else {
    const tag = prefix ? "ins" : "del";
    const words = pieces.flatMap((piece) => [
      make(piece.differs ? tag : "span", "", piece.text),
      " ",
    ]);
    element.append(foreign("span", "", ...words));
  }
  return element;
}

/** Why a row has no text. @param {Context["data"]} data @param {number} row @param {string} prefix */
function absence(data, row, prefix) {
  const side = valueIn(data, "side", row);
  if (side === (prefix ? 1 : 2)) return make("span", "", "no such row");
  const type = valueIn(data, `${prefix}error_type`, row);
  if (type === null) return make("span", "", "no text");
  const message = valueIn(data, `${prefix}error`, row);
  return make("span", "", message ? `${type}: ${message}` : type);
}

/** @param {Context["data"]} data @param {number} row */
function failed(data, row) {
  return valueIn(data, "error_type", row) !== null;
}

/** @param {Context["data"]} data @param {number} row */
function bars(data, row) {
  const prefixes = compares(data) && data.table.rows.other_confidence ? ["", "other_"] : [""];
  return prefixes.map((prefix) => bar(valueIn(data, `${prefix}confidence`, row), "confidence"));
}

/** @param {Context["data"]} data @param {number} row */
function scoreOf(data, row) {
  const score = valueIn(data, "score", row);
  const shown = score === null ? "–" : String(Math.round(score * 100) / 100);
  return make("span", "score", `${data.run.score ?? "score"} ${shown}`);
}

/** The nearest images, small. @param {Context} context @param {number} row */
function neighbourStrip({ data, thumbnails }, row) {
  const strip = make("div", "strip");
  for (const [other] of (valueIn(data, "neighbours", row) ?? []).slice(0, SMALL_NEIGHBOURS)) {
    strip.append(thumbnails.draw(valueIn(data, "image", other) ?? -1, SMALL_BOX, null));
  }
  return strip;
}

/** A row in words, for those who hear it. @param {Context} context @param {number} row
 * @param {string} name */
function spoken({ data, verdicts }, row, name) {
  const confidence = valueIn(data, "confidence", row);
  const other = compares(data) ? textOf(data, row, "other_") : null;
  const flag = flagOf(data, row);
  const verdict = verdicts.verdictOf(row)?.verdict;
  const words = [
    name,
    valueIn(data, "question", row),
    failed(data, row) ? valueIn(data, "error_type", row) : textOf(data, row),
    other === null ? null : `second: ${other}`,
    confidence === null ? null : `confidence ${percent(confidence)}`,
    flag === "good" ? null : flag,
    verdict ? `judged ${verdict}` : null,
  ];
  return visible(words.filter((word) => word !== null).join(", "));
}
