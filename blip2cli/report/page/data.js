/**
 * What the page holds: a small description of the run, and the columns of the rows, packed.
 * `assemble` in this folder says who fills them.
 */

/**
 * @typedef {object} Output
 * @property {string} name
 * @property {string} token
 * @property {[string, string][]} settings
 * @property {[string, number][]} counts
 * @property {{read: number, model: number, write: number} | null} seconds
 * @property {[string, number][]} errors
 */

/** @typedef {{value: number, low: number | null, high: number | null}} Figure */

/** @typedef {Figure & {name: string, other?: Figure | null, difference?: Figure | null}} Metric */

/** @typedef {{confidence: number, accuracy: number, count: number}} ReliabilityBin */

/** @typedef {{cell: number, per_line: number, per_sheet: number, sheets: string[]}} Sprites */

/**
 * @typedef {object} Run
 * @property {number} format
 * @property {string} version
 * @property {string} task
 * @property {Output[]} outputs
 * @property {string | null} confidence what the confidence of a row is
 * @property {string | null} [score] the metric that `score` is a row's part of
 * @property {Metric[]} metrics
 * @property {ReliabilityBin[]} reliability
 * @property {number | null} ece
 * @property {Sprites | null} sprites
 * @property {string[]} notes
 * @property {[string, string][]} licences
 */

/** @typedef {Record<string, any[] | undefined>} Columns */

/**
 * @typedef {object} Table
 * @property {Columns} rows
 * @property {{width: number[], height: number[]}} images
 * @property {{name: string, values: any[]}[]} extra
 */

/** @typedef {{run: Run, table: Table, count: number}} Data */

/** Reads what the page holds. @returns {Promise<Data>} */
export async function openData() {
  /** @type {Run} */
  const run = JSON.parse(heldText("run"));
  /** @type {Table} */
  const table = await unpack(heldText("columns"));
  return { run, table, count: table.rows.file_name?.length ?? 0 };
}

/** The value of a column in a row; null where there is none.
 * @param {Data} data @param {string} column @param {number} row */
export function valueIn(data, column, row) {
  return data.table.rows[column]?.[row] ?? null;
}

/** What a row says: its text, or the guess of a row that abstained.
 * @param {Data} data @param {number} row @param {string} [prefix] @returns {string | null} */
export function textOf(data, row, prefix = "") {
  return valueIn(data, `${prefix}text`, row) ?? valueIn(data, `${prefix}guess`, row);
}

/** Whether the page compares two outputs. @param {Data} data */
export function compares(data) {
  return data.run.outputs.length > 1;
}

/** Whether rows have texts or guesses, which can be judged. @param {Data} data */
export function hasTexts(data) {
  return (data.table.rows.text ?? data.table.rows.guess) !== undefined;
}

/** @param {string} id @returns {string} */
function heldText(id) {
  return document.getElementById(id)?.textContent ?? "";
}

/** Base64 of gzip of JSON. @param {string} text @returns {Promise<any>} */
async function unpack(text) {
  const unzipped = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(unzipped).json();
}

/** @param {string} base64 */
export function bytesOf(base64) {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
