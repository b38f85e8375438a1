/** A list of any length, of which only what is seen is in the document. */

import { make } from "./dom.js";

// Rows above and below what is seen: a scrolled list is painted before its script runs.
const MARGIN = 6;
// Browsers cut elements that are higher: Firefox at 17.9 million pixels. A longer list is squeezed:
// one pixel of its scroll bar is then several of its rows.
const HIGHEST = 15_000_000;
const PRINTED = 200;

export class VirtualList {
  /** @param {HTMLElement} scroller @param {(row: number) => HTMLElement} draw
   * @param {(row: number | null) => void} selected when another row becomes the current one */
  constructor(scroller, draw, selected) {
    this.scroller = scroller;
    this.drawRow = draw;
    this.selected = selected;
    this.canvas = make("div", "canvas");
    this.canvas.setAttribute("role", "presentation");
    scroller.append(this.canvas);
    /** @type {Uint32Array} */
    this.rows = new Uint32Array();
    /** @type {Map<number, HTMLElement>} what is in the document, by position */
    this.drawn = new Map();
    this.current = -1;
    this.rowHeight = 1;
    this.firstSeen = 0;
    this.printing = false;
    this.pending = 0;
    scroller.addEventListener("scroll", () => this.later(), { passive: true });
    scroller.addEventListener("click", (event) => this.clicked(event));
    new ResizeObserver(() => this.resized()).observe(scroller);
  }

  /** Shows these rows from the first on. @param {Uint32Array} rows */
  show(rows) {
    this.rows = rows;
    this.scroller.setAttribute("role", rows.length ? "listbox" : "group");
    this.clear();
    this.measure();
    this.scroller.scrollTop = 0;
    this.go(0);
  }

  /** The row that is current, or null. @returns {number | null} */
  currentRow() {
    return this.rows[this.current] ?? null;
  }

  /** Makes the row at a position current, and scrolls as little as needed. @param {number} position */
  go(position) {
    this.current = Math.max(Math.min(position, this.rows.length - 1), this.rows.length ? 0 : -1);
    if (this.current >= 0) this.reveal(this.current);
    this.draw();
    this.selected(this.currentRow());
  }

  /** @param {number} row @returns {boolean} whether it is in the list */
  goToRow(row) {
    const position = this.rows.indexOf(row);
    if (position >= 0) this.go(position);
    return position >= 0;
  }

  /** How many whole rows are seen at once. */
  page() {
    return Math.max(1, Math.floor(this.scroller.clientHeight / this.rowHeight));
  }

  /** Draws a row again, whose looks have changed. @param {number} row */
  refresh(row) {
    const position = this.rows.indexOf(row);
    this.drawn.get(position)?.remove();
    this.drawn.delete(position);
    this.draw();
  }

  /** Draws everything again. */
  redraw() {
    this.printing = false;
    this.clear();
    this.draw();
  }

  clear() {
    this.canvas.replaceChildren();
    this.drawn.clear();
  }

  later() {
    this.pending ||= requestAnimationFrame(() => {
      this.pending = 0;
      this.draw();
    });
  }

  /** The height of a row, by one that is drawn on trial: it follows the size of the font. */
  measure() {
    if (!this.rows.length) return;
    const trial = this.drawRow(this.rows[0]);
    this.canvas.append(trial);
    this.rowHeight = trial.getBoundingClientRect().height || this.rowHeight;
    trial.remove();
    this.canvas.style.height = `${Math.min(this.rows.length * this.rowHeight, HIGHEST)}px`;
  }

  resized() {
    if (this.printing || !this.scroller.clientHeight) return; // hidden: it goes on where it was
    this.measure();
    this.scroller.scrollTop = (this.firstSeen * this.rowHeight) / this.squeeze();
    this.redraw();
  }

  /** How many pixels of rows fit one pixel of the scroll bar: 1 unless the list is squeezed. */
  squeeze() {
    const seen = this.scroller.clientHeight;
    const whole = this.rows.length * this.rowHeight;
    return whole <= HIGHEST ? 1 : (whole - seen) / (HIGHEST - seen);
  }

  /** Where the seen rows begin, in pixels of rows. */
  top() {
    return this.scroller.scrollTop * this.squeeze();
  }

  /** @param {number} position */
  reveal(position) {
    const [top, height] = [position * this.rowHeight, this.rowHeight];
    const seen = this.scroller.clientHeight;
    if (top < this.top()) this.scroller.scrollTop = Math.floor(top / this.squeeze());
    if (top + height > this.top() + seen) {
      this.scroller.scrollTop = Math.ceil((top + height - seen) / this.squeeze());
    }
  }

  draw() {
    if (this.printing) return;
    const top = this.top();
    if (this.scroller.clientHeight) this.firstSeen = top / this.rowHeight;
    const first = Math.max(0, Math.floor(top / this.rowHeight) - MARGIN);
    const last = Math.min(
      this.rows.length,
      Math.ceil((top + this.scroller.clientHeight) / this.rowHeight) + MARGIN,
    );
    for (const [position, element] of this.drawn) {
      if ((position < first || position >= last) && position !== this.current) {
        element.remove();
        this.drawn.delete(position);
      }
    }
    const shift = this.scroller.scrollTop - top;
    // From the last up, each before the next: in the document they stand in order.
    for (let position = last - 1; position >= first; position--) {
      this.place(position, shift, this.drawn.get(position + 1) ?? null);
    }
    if (this.current >= 0) {
      this.place(this.current, shift, this.current < first ? this.canvas.firstChild : null);
    }
    const current = this.drawn.get(this.current);
    if (current) this.scroller.setAttribute("aria-activedescendant", current.id);
    else this.scroller.removeAttribute("aria-activedescendant");
  }

  /** Draws the row at a position, or moves it when the list is squeezed.
   * @param {number} position @param {number} shift @param {Node | null} before */
  place(position, shift, before) {
    let element = this.drawn.get(position);
    if (!element) {
      element = this.drawRow(this.rows[position]);
      element.id = `row-${this.rows[position]}`;
      element.setAttribute("role", "option");
      element.setAttribute("aria-posinset", String(position + 1));
      element.setAttribute("aria-setsize", String(this.rows.length));
      this.drawn.set(position, element);
      this.canvas.insertBefore(element, before);
    }
    element.setAttribute("aria-selected", String(position === this.current));
    element.style.top = `${position * this.rowHeight + shift}px`;
  }

  /** @param {MouseEvent} event */
  clicked(event) {
    for (const [position, element] of this.drawn) {
      if (event.target instanceof Node && element.contains(event.target)) return this.go(position);
    }
  }

  /** Puts the first rows one below the other, for paper; redraw() ends that.
   * @returns {number} how many */
  print() {
    this.printing = true;
    this.clear();
    for (const row of this.rows.subarray(0, PRINTED)) this.canvas.append(this.drawRow(row));
    return Math.min(this.rows.length, PRINTED);
  }
}
