/** Small charts, drawn as SVG. Each says in words what it shows. */

import { count, decimals, make, percent } from "./dom.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const WIDTH = 360;
const HEIGHT = 132;
const BASE = 112; // where bars stand
const SQUARE = 240;

/** @param {string} tag @param {Record<string, string | number>} attributes
 * @param {...(Node | string)} children @returns {SVGElement} */
function svg(tag, attributes, ...children) {
  const element = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** @param {number} width @param {number} height @param {string} label @param {...Node} children */
function chart(width, height, label, ...children) {
  const box = {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": label,
    class: "chart",
  };
  return svg("svg", box, ...children);
}

/** @param {number} x @param {number} y @param {string} text @param {string} [anchor] */
function label(x, y, text, anchor = "middle") {
  return svg("text", { x, y, "text-anchor": anchor }, text);
}

/** Numbers in bins of equal width; a second series is an outline over it.
 * @param {string} title @param {number[][]} series one or two
 * @param {{from: number, to: number, bins: number, spell: (value: number) => string}} axis
 * @returns {HTMLElement} */
export function histogram(title, series, axis) {
  const binned = series.map((values) => bins(values, axis));
  const highest = Math.max(1, ...binned.flat());
  const step = WIDTH / axis.bins;
  const height = (/** @type {number} */ n) => (n / highest) * (BASE - 14);
  const bars = binned[0].map((n, i) =>
    svg(
      "rect",
      { x: i * step + 1, y: BASE - height(n), width: step - 2, height: height(n), class: "bar" },
      svg(
        "title",
        {},
        `${axis.spell(edge(axis, i))} to ${axis.spell(edge(axis, i + 1))}: ${count(n)}`,
      ),
    ),
  );
  const outlines = binned.slice(1).map((counts) => {
    const points = counts.flatMap((n, i) => [
      `${i * step},${BASE - height(n)}`,
      `${(i + 1) * step},${BASE - height(n)}`,
    ]);
    return svg("polyline", { points: points.join(" "), class: "outline" });
  });
  const middle = median(series[0]);
  const said =
    middle === null ? "no values" : `${count(series[0].length)} rows, median ${axis.spell(middle)}`;
  const drawn = chart(
    WIDTH,
    HEIGHT,
    `${title}: ${said}`,
    ...bars,
    ...outlines,
    svg("line", { x1: 0, x2: WIDTH, y1: BASE, y2: BASE, class: "axis" }),
    label(0, HEIGHT - 4, axis.spell(axis.from), "start"),
    label(WIDTH / 2, HEIGHT - 4, axis.spell((axis.from + axis.to) / 2)),
    label(WIDTH, HEIGHT - 4, axis.spell(axis.to), "end"),
  );
  return make(
    "figure",
    "",
    make(
      "figcaption",
      "",
      title,
      make("small", "", said, series.length > 1 ? "; bars: A, line: B" : null),
    ),
    drawn,
  );
}

/** @param {{from: number, to: number, bins: number}} axis @param {number} i */
function edge(axis, i) {
  return axis.from + ((axis.to - axis.from) * i) / axis.bins;
}

/** @param {number[]} values @param {{from: number, to: number, bins: number}} axis */
function bins(values, axis) {
  const counts = Array.from({ length: axis.bins }, () => 0);
  for (const value of values) {
    const bin = Math.floor(((value - axis.from) / (axis.to - axis.from)) * axis.bins);
    counts[Math.max(0, Math.min(axis.bins - 1, bin))]++;
  }
  return counts;
}

/** @param {number[]} values */
function median(values) {
  return Float64Array.from(values).sort()[Math.floor(values.length / 2)] ?? null;
}

/** Shares of a whole as one bar with its legend. @param {string} title @param {[string, number][]} amounts
 * @param {(amount: number) => string} spell */
export function stackedBar(title, amounts, spell) {
  const whole = amounts.reduce((sum, [, amount]) => sum + amount, 0) || 1;
  const strip = make("div", "stack");
  strip.setAttribute("aria-hidden", "true");
  const legend = make("ul", "legend");
  for (const [i, [name, amount]] of amounts.entries()) {
    const piece = make("span", `series-${i}`);
    piece.style.width = `${(amount / whole) * 100}%`;
    strip.append(piece);
    const words = `${name} ${percent(amount / whole)} (${spell(amount)})`;
    legend.append(make("li", "", make("span", `swatch series-${i}`), words));
  }
  return make("figure", "", make("figcaption", "", title), strip, legend);
}

/** Counts as bars that lie below one another. @param {string} title @param {[string, number][]} counts */
export function countBars(title, counts) {
  const highest = Math.max(1, ...counts.map(([, n]) => n));
  const list = make("ul", "count-bars");
  for (const [name, n] of counts) {
    const fill = make("span", "meter-fill");
    fill.style.width = `${(n / highest) * 100}%`;
    const track = make("span", "meter-track", fill);
    track.setAttribute("aria-hidden", "true");
    list.append(make("li", "", make("bdi", "", name), track, make("span", "amount", count(n))));
  }
  return make("figure", "", make("figcaption", "", title), list);
}

/** How often answers of a confidence are right: on the diagonal when it is what it says.
 * @param {import("./data.js").ReliabilityBin[]} reliability @param {number | null} ece */
export function reliabilityDiagram(reliability, ece) {
  const most = Math.max(1, ...reliability.map((bin) => bin.count));
  const [left, size] = [40, SQUARE - 40];
  const at = (/** @type {number} */ confidence, /** @type {number} */ accuracy) => ({
    x: left + confidence * size,
    y: size * (1 - accuracy) + 8,
  });
  const [low, high] = [at(0, 0), at(1, 1)];
  const gaps = reliability.map(({ confidence, accuracy }) => {
    const [point, ideal] = [at(confidence, accuracy), at(confidence, confidence)];
    return svg("line", { x1: point.x, y1: point.y, x2: ideal.x, y2: ideal.y, class: "gap" });
  });
  const points = reliability.map(({ confidence, accuracy, count: n }) => {
    const { x, y } = at(confidence, accuracy);
    const words = `said ${percent(confidence)}, right ${percent(accuracy)}, ${count(n)} rows`;
    const radius = 2.5 + 5 * Math.sqrt(n / most);
    return svg("circle", { cx: x, cy: y, r: radius, class: "point" }, svg("title", {}, words));
  });
  const said =
    ece === null ? `${reliability.length} bins` : `expected calibration error ${decimals(ece)}`;
  const drawn = chart(
    SQUARE + 8,
    SQUARE,
    `Reliability diagram: ${said}`,
    svg("rect", { x: left, y: 8, width: size, height: size, class: "frame" }),
    svg("line", { x1: low.x, y1: low.y, x2: high.x, y2: high.y, class: "axis diagonal" }),
    ...gaps,
    ...points,
    label(left, size + 24, "0", "start"),
    label(left + size / 2, size + 24, "confidence"),
    label(left + size, size + 24, "100 %", "end"),
    label(left - 5, 16, "100 %", "end"),
    label(left - 5, size + 8, "0", "end"),
  );
  const caption = make("figcaption", "", "Reliability", make("small", "", said));
  return make("figure", "reliability", caption, drawn, binTable(reliability));
}

/** @param {import("./data.js").ReliabilityBin[]} reliability */
function binTable(reliability) {
  const rows = reliability.map((bin) => [
    percent(bin.confidence),
    percent(bin.accuracy),
    count(bin.count),
  ]);
  return make(
    "details",
    "",
    make("summary", "", "As a table"),
    table(["said", "right", "rows"], rows),
  );
}

/** A table of texts; the first column names its row. @param {string[]} head @param {string[][]} rows */
export function table(head, rows) {
  const cells = (/** @type {string[]} */ texts) =>
    texts.map((text, i) => {
      const cell = make(i ? "td" : "th", "", text);
      if (!i) cell.setAttribute("scope", "row");
      return cell;
    });
  const titles = head.map((text) => {
    const cell = make("th", "", text);
    cell.setAttribute("scope", "col");
    return cell;
  });
  return make(
    "table",
    "",
    make("thead", "", make("tr", "", ...titles)),
    make("tbody", "", ...rows.map((texts) => make("tr", "", ...cells(texts)))),
  );
}
