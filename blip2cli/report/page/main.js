/** Puts the page together, and answers the keyboard. */

import { Controls, NARROW } from "./controls.js";
import { hasTexts, openData } from "./data.js";
import { Detail } from "./detail.js";
import { byId, count, foreign, make, visible } from "./dom.js";
import { VirtualList } from "./list.js";
import { drawRow } from "./row.js";
import { runPanel } from "./run_panel.js";
import { Selection } from "./selection.js";
import { Thumbnails } from "./thumbnail.js";
import { Verdicts } from "./verdicts.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./verdicts.js").Verdict["verdict"]} Kind */

const FIRST_NOTES = 2;

class Page {
  /** @param {Data} data */
  constructor(data) {
    this.data = data;
    this.verdicts = new Verdicts(data);
    this.thumbnails = new Thumbnails(data.run.sprites, data.table.images);
    const context = { data, thumbnails: this.thumbnails, verdicts: this.verdicts };
    this.selection = new Selection(data, this.verdicts);
    this.controls = new Controls(data, this.selection.orders, () => this.select());
    this.detail = new Detail(context, {
      judge: (kind, correction) => this.judge(kind, correction),
      go: (row) => this.goTo(row),
    });
    this.scroller = byId("list", HTMLElement);
    this.list = new VirtualList(
      this.scroller,
      (row) => drawRow(context, row),
      (row) => this.detail.show(row),
    );
    byId("export", HTMLButtonElement).hidden = !hasTexts(data);
    this.describe();
    this.listen();
    this.select();
    this.tellVerdicts();
  }

  /** Names the outputs, and says what is to be known about the page. */
  describe() {
    const { outputs, notes, task } = this.data.run;
    const names = outputs.map((output) => foreign("span", "", output.name));
    const heading = byId("title", HTMLElement);
    heading.replaceChildren(names[0], ...names.slice(1).flatMap((name) => [" → ", name]));
    byId("task", HTMLElement).textContent = task;
    const more = notes.length - FIRST_NOTES;
    const first = notes.slice(0, FIRST_NOTES);
    if (more > 0) first.push(`${count(more)} more such remarks stand under Run.`);
    byId("notes", HTMLElement).replaceChildren(...first.map((note) => foreign("p", "note", note)));
    document.title = visible(document.title);
  }

  listen() {
    const on = (/** @type {string} */ id, /** @type {() => void} */ action) =>
      byId(id, HTMLButtonElement).addEventListener("click", action);
    on("view-rows", () => this.view("rows"));
    on("view-run", () => this.view("run"));
    on("export", () => this.exportVerdicts());
    on("theme", turnTheme);
    on("help", () => byId("keys", HTMLDialogElement).showModal());
    on("back", () => this.open(false));
    this.scroller.addEventListener("keydown", (event) => this.listKey(event));
    this.scroller.addEventListener("click", () => NARROW.matches && this.open(true));
    document.addEventListener("keydown", (event) => this.key(event));
    NARROW.addEventListener("change", () => {
      this.open(false);
      byId("more", HTMLDetailsElement).open = !NARROW.matches;
    });
    window.addEventListener("beforeprint", () => this.print());
    window.addEventListener("afterprint", () => this.list.redraw());
    window.addEventListener("storage", (event) => {
      if (event.key !== this.verdicts.place) return;
      this.verdicts.load();
      this.list.redraw();
      this.detail.show(this.list.currentRow());
      this.tellVerdicts();
    });
  }

  /** Shows the rows that the controls ask for. */
  select() {
    const { controls } = this;
    const rows = this.selection.select(
      controls.filter(),
      controls.order.value,
      controls.isDescending(),
    );
    this.list.show(rows);
    const all = count(this.data.count);
    const shown = rows.length === this.data.count ? all : `${count(rows.length)} of ${all}`;
    byId("shown", HTMLElement).textContent = `${shown} rows`;
    if (this.showsRun()) this.drawRun();
  }

  showsRun() {
    return !byId("run-view", HTMLElement).hidden;
  }

  drawRun() {
    byId("run-view", HTMLElement).replaceChildren(...runPanel(this.data, this.list.rows));
  }

  /** @param {"rows" | "run"} name */
  view(name) {
    for (const each of ["rows", "run"]) {
      byId(`${each}-view`, HTMLElement).hidden = each !== name;
      byId(`view-${each}`, HTMLElement).setAttribute("aria-pressed", String(each === name));
    }
    byId("notes", HTMLElement).hidden = name === "run"; // they stand there, and all of them
    if (name === "run") this.drawRun();
    (name === "run" ? byId("run-view", HTMLElement) : this.scroller).focus();
  }

  /** Opens the details over the list where there is no place beside it. @param {boolean} open */
  open(open) {
    byId("detail", HTMLElement).classList.toggle("open", open);
    for (const id of ["top", "list"]) byId(id, HTMLElement).inert = open;
    (open ? byId("back", HTMLElement) : this.scroller).focus();
  }

  /** @param {Kind | null} kind @param {string} [correction] */
  judge(kind, correction) {
    const row = this.list.currentRow();
    if (row === null || !this.verdicts.canJudge(row)) return;
    this.verdicts.judge(row, kind, correction);
    this.list.refresh(row);
    this.tell(kind === null ? "Verdict taken back" : `Judged ${kind}`);
    this.tellVerdicts();
    const wasLast = this.list.current === this.list.rows.length - 1;
    if (kind === null || wasLast) this.detail.show(row);
    else this.list.go(this.list.current + 1);
    const detail = byId("detail", HTMLElement);
    (detail.classList.contains("open") ? detail : this.scroller).focus();
  }

  tellVerdicts() {
    const { right, wrong, corrected } = this.verdicts.counts();
    const all = right + wrong + corrected;
    byId("verdicts", HTMLElement).textContent = all
      ? `${count(right)} right · ${count(wrong)} wrong · ${count(corrected)} corrected`
      : "";
    byId("export", HTMLButtonElement).disabled = all === 0;
    byId("unkept", HTMLElement).hidden = this.verdicts.kept;
  }

  exportVerdicts() {
    const lines = new Blob([this.verdicts.exported()], { type: "application/jsonl" });
    const link = make("a", "");
    link.href = URL.createObjectURL(lines);
    link.download = `${this.data.run.outputs[0].name}.verdicts.jsonl`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  /** @param {number} row */
  goTo(row) {
    if (!this.list.goToRow(row)) {
      this.controls.reset();
      this.select();
      this.list.goToRow(row);
    }
    if (!NARROW.matches) this.scroller.focus();
  }

  /** Says something to those who hear the page. @param {string} words */
  tell(words) {
    byId("spoken", HTMLElement).textContent = words;
  }

  /** Keys of the list. @param {KeyboardEvent} event */
  listKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { list } = this;
    /** @type {Record<string, number>} */
    const places = {
      ArrowDown: list.current + 1,
      j: list.current + 1,
      ArrowUp: list.current - 1,
      k: list.current - 1,
      PageDown: list.current + list.page(),
      PageUp: list.current - list.page(),
      Home: 0,
      End: list.rows.length - 1,
    };
    if (event.key === "Enter" && NARROW.matches) this.open(true);
    else if (event.key in places) list.go(places[event.key]);
    else return;
    event.preventDefault();
  }

  /** Single keys, wherever nothing is typed or chosen. @param {KeyboardEvent} event */
  key(event) {
    if (event.key === "Escape") this.escape();
    const { target } = event;
    const typed = target instanceof Element && target.closest("input, select, textarea, dialog");
    if (typed || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!byId("single-keys", HTMLInputElement).checked) return;
    /** @type {Record<string, () => void>} */
    const actions = {
      r: () => this.toggle("right"),
      x: () => this.toggle("wrong"),
      c: () => this.correct(),
      w: () => this.worst(),
      e: () => byId("export", HTMLElement).click(),
      i: () => this.view(this.showsRun() ? "rows" : "run"),
      "/": () => byId("filter-text", HTMLElement).focus(),
      "?": () => byId("help", HTMLElement).click(),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  /** @param {Kind} kind */
  toggle(kind) {
    if (this.showsRun()) return; // one judges what one sees
    const row = this.list.currentRow();
    const same = row !== null && this.verdicts.verdictOf(row)?.verdict === kind;
    this.judge(same ? null : kind);
  }

  correct() {
    if (this.showsRun()) return;
    if (NARROW.matches) this.open(true);
    this.detail.correct();
  }

  worst() {
    byId("worst", HTMLElement).click();
    this.view("rows");
  }

  escape() {
    if (document.querySelector("dialog[open]")) return;
    if (byId("detail", HTMLElement).classList.contains("open")) this.open(false);
    else this.view("rows");
  }

  print() {
    this.drawRun();
    const printed = this.list.print();
    byId("printed", HTMLElement).textContent =
      printed < this.list.rows.length
        ? `The first ${count(printed)} of ${count(this.list.rows.length)} rows.`
        : "";
  }
}

/** From what the system has to the other, and back. */
function turnTheme() {
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = root.dataset.theme ? "" : dark ? "light" : "dark";
}

/** @param {unknown} reason */
function cannotOpen(reason) {
  const words =
    "DecompressionStream" in window
      ? `This page is damaged: ${reason instanceof Error ? reason.message : reason}`
      : "This browser is too old for this page: it needs one of 2024 or newer.";
  byId("opening", HTMLElement).textContent = words;
}

openData()
  .then((data) => {
    new Page(data);
    byId("opening", HTMLElement).hidden = true;
    byId("list", HTMLElement).focus();
    performance.mark("ready");
  })
  .catch(cannotOpen);
