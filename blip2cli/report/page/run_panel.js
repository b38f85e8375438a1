/** The run as a whole: how it was made, what came of it, and how good it is. */

import { countBars, histogram, reliabilityDiagram, stackedBar, table } from "./charts.js";
import { compares, hasTexts, textOf, valueIn } from "./data.js";
import { count, decimals, facts, foreign, make, percent } from "./dom.js";
import { flagOf, tally } from "./selection.js";
import { wordCount } from "./words.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./data.js").Figure} Figure */

const BINS = 20;
const DIFFER = "Settings that differ";
const FEWEST_WORDS = 7;
const MOST_WORD_BINS = 30;
const PICTURES =
  "This page holds small copies of the pictures: whoever gets the page gets them too.";

/** What stands in the panel; charts are about the rows given.
 * @param {Data} data @param {Uint32Array} rows @returns {Node[]} */
export function runPanel(data, rows) {
  const { run } = data;
  return [
    ...run.notes.map((note) => foreign("p", "note", note)),
    ...(run.metrics.length ? [metrics(data)] : []),
    make("div", "cards", ...charts(data, rows), ...changes(data), ...made(data)),
    colophon(data),
  ];
}

/** @param {Data} data @param {Uint32Array} rows */
function charts(data, rows) {
  const { run } = data;
  const prefixes = compares(data) ? ["", "other_"] : [""];
  const figures = [];
  if (run.reliability.length) figures.push(reliabilityDiagram(run.reliability, run.ece));
  if (data.table.rows.confidence) {
    const series = prefixes.map((prefix) => numbers(data, rows, `${prefix}confidence`));
    const figure = histogram("Confidence", series, { from: 0, to: 1, bins: BINS, spell: percent });
    if (run.confidence) figure.append(foreign("small", "", run.confidence));
    figures.push(figure);
  }
  if (hasTexts(data)) figures.push(lengths(data, rows, prefixes));
  const flags = tally(rows.length, (i) => flagOf(data, rows[i]));
  if (flags.length > 1 || flags[0]?.[0] !== "good") figures.push(countBars("Flags", flags));
  return figures.map((figure) => make("section", "card", figure));
}

/** @param {Data} data @param {Uint32Array} rows @param {string[]} prefixes */
function lengths(data, rows, prefixes) {
  const series = prefixes.map((prefix) => {
    const texts = [...rows].map((row) => textOf(data, row, prefix)).filter((text) => text !== null);
    return texts.map(wordCount);
  });
  const longest = series.flat().reduce((most, words) => Math.max(most, words), FEWEST_WORDS);
  const bins = Math.min(longest + 1, MOST_WORD_BINS);
  const to = Math.ceil((longest + 1) / bins) * bins;
  const spell = (/** @type {number} */ words) => `${Math.round(words)}`;
  return histogram("Words of a text", series, { from: 0, to, bins, spell });
}

/** @param {Data} data @param {Uint32Array} rows @param {string} column @returns {number[]} */
function numbers(data, rows, column) {
  return [...rows].map((row) => valueIn(data, column, row)).filter((value) => value !== null);
}

/** The settings in which two outputs differ. @param {Data} data */
function changes(data) {
  if (!compares(data)) return [];
  const [a, b] = data.run.outputs.map((output) => new Map(output.settings));
  const names = [...new Set([...a.keys(), ...b.keys()])];
  const rows = names
    .filter((name) => a.get(name) !== b.get(name))
    .map((name) => [name, a.get(name) ?? "–", b.get(name) ?? "–"]);
  const shown = rows.length ? scrolled(table(["setting", "A", "B"], rows), DIFFER) : "None.";
  return [make("section", "card", make("h2", "", DIFFER), shown)];
}

/** How each output was made. @param {Data} data */
function made(data) {
  return data.run.outputs.flatMap((output, i) => {
    const letter = compares(data) ? ` ${"AB"[i]}` : "";
    const counts = output.counts.map(
      ([name, n]) => /** @type {[string, string]} */ ([name, count(n)]),
    );
    const cards = [make("section", "card", heading(`Counts${letter}`, output.name), facts(counts))];
    if (output.seconds) {
      const { read, model, write } = output.seconds;
      /** @type {[string, number][]} */
      const shares = [
        ["read", read],
        ["model", model],
        ["write", write],
      ];
      const spell = (/** @type {number} */ seconds) => `${decimals(seconds)} s`;
      cards.push(make("section", "card", stackedBar(`Time${letter}`, shares, spell)));
    }
    if (output.errors.length) {
      cards.push(make("section", "card", countBars(`Errors by type${letter}`, output.errors)));
    }
    if (output.settings.length) {
      const title = heading(`Settings${letter}`, output.name);
      cards.push(make("section", "card wide", title, facts(output.settings)));
    }
    return cards;
  });
}

/** @param {string} title @param {string} name */
function heading(title, name) {
  return make("h2", "", title, foreign("small", "", name));
}

/** The metrics as a table. @param {Data} data */
function metrics(data) {
  const { metrics: found } = data.run;
  const head = compares(data)
    ? ["metric", "A", "95 % of A", "B", "95 % of B", "B − A", "95 % of B − A"]
    : ["metric", "value", "95 % interval"];
  const rows = found.map((metric) => [
    metric.name,
    ...figure(metric),
    ...(compares(data) ? [...figure(metric.other), ...figure(metric.difference)] : []),
  ]);
  return make(
    "section",
    "metrics",
    make("h2", "", "Metrics"),
    scrolled(table(head, rows), "Metrics"),
  );
}

/** @param {Figure | null | undefined} figure */
function figure(figure) {
  if (!figure) return ["–", "–"];
  const { value, low, high } = figure;
  return [
    decimals(value),
    low === null || high === null ? "–" : `${decimals(low)} to ${decimals(high)}`,
  ];
}

/** A wide table scrolls by itself. @param {HTMLElement} content @param {string} label */
function scrolled(content, label) {
  const box = make("div", "scrolled", content);
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", label);
  return box;
}

/** @param {Data} data */
function colophon({ run }) {
  const licences = run.licences.map(([name, text]) =>
    make("details", "", make("summary", "", `Licence of ${name}`), make("pre", "", text)),
  );
  const made = `Made by blip2cli ${run.version}, whose page is under the Apache License 2.0.`;
  const words = run.sprites ? `${PICTURES} ${made}` : `This page holds no pictures. ${made}`;
  return make("footer", "colophon", make("p", "", words), ...licences);
}
