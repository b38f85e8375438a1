/** Everything about the current row, and where a person judges it. */

import { compares, valueIn } from "./data.js";
import { bar, button, byId, decimals, facts, foreign, make } from "./dom.js";
import { chips, said, VERDICT_SIGNS } from "./row.js";

/** @typedef {import("./row.js").Context} Context */
/** @typedef {import("./verdicts.js").Verdict["verdict"]} Kind */

const LARGE_BOX = 288;
const NEIGHBOUR_BOX = 72;
/** @type {[Kind, string, string][]} verdict, label, key */
const KINDS = [
  ["right", "Right", "r"],
  ["wrong", "Wrong", "x"],
  ["corrected", "Correct…", "c"],
];

export class Detail {
  /** @param {Context} context
   * @param {{judge: (kind: Kind | null, correction?: string) => void, go: (row: number) => void}} acts */
  constructor(context, acts) {
    this.context = context;
    this.acts = acts;
    this.content = byId("detail-content", HTMLElement);
    /** @type {number | null} */
    this.row = null;
  }

  /** @param {number | null} row */
  show(row) {
    this.row = row;
    this.content.replaceChildren(...(row === null ? [nothing()] : this.contents(row)));
    this.content.parentElement?.scrollTo(0, 0);
  }

  /** Opens the field for the right text. */
  correct() {
    const form = this.content.querySelector("form");
    if (!form) return;
    form.hidden = false;
    const field = form.querySelector("textarea");
    field?.focus();
    field?.select();
  }

  /** @param {number} row @returns {Node[]} */
  contents(row) {
    const { data, thumbnails, verdicts } = this.context;
    const value = (/** @type {string} */ column) => valueIn(data, column, row);
    const name = String(value("file_name"));
    const heading = foreign("h2", "", name);
    const picture = thumbnails.draw(value("image") ?? -1, LARGE_BOX, `picture ${name}`);
    const question = value("question");
    const isText = data.run.task !== "embed" || value("error_type") !== null;
    return [
      make("div", "picture", picture),
      heading,
      make("p", "chips", ...chips(data, row)),
      ...(question === null ? [] : [foreign("p", "row-question", question)]),
      ...(isText ? said(data, row) : []),
      ...(verdicts.canJudge(row) ? [this.judging(row)] : []),
      ...sections(this.context, row, this.acts.go),
    ];
  }

  /** @param {number} row */
  judging(row) {
    const { verdicts } = this.context;
    const verdict = verdicts.verdictOf(row);
    const group = make("div", "judging");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Verdict");
    for (const [kind, label, key] of KINDS) {
      const chosen = verdict?.verdict === kind;
      const act = () => {
        if (kind === "corrected") this.correct();
        else this.acts.judge(chosen ? null : kind);
      };
      const choice = button("", act, "verdict-button");
      choice.dataset.verdict = kind;
      choice.setAttribute("aria-pressed", String(chosen));
      choice.setAttribute("aria-keyshortcuts", key);
      const sign = make("span", "", VERDICT_SIGNS[kind]);
      sign.setAttribute("aria-hidden", "true");
      choice.append(sign, label, make("kbd", "", key));
      group.append(choice);
    }
    return make("div", "", group, this.correction(row));
  }

  /** @param {number} row */
  correction(row) {
    const verdict = this.context.verdicts.verdictOf(row);
    const form = make("form", "correction");
    const field = foreign("textarea", "");
    field.rows = 2;
    field.id = "correction";
    field.value = verdict?.label ?? this.context.verdicts.shown(row) ?? "";
    const label = make("label", "", "The right text");
    label.htmlFor = field.id;
    const keep = make("button", "", "Keep");
    const drop = button("Cancel", () => this.show(row));
    form.hidden = verdict?.verdict !== "corrected";
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (field.value.trim()) this.acts.judge("corrected", field.value.trim());
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.show(row);
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    form.append(label, field, make("div", "buttons", keep, drop));
    return form;
  }
}

function nothing() {
  return make("p", "absent", "No row passes these filters.");
}

/** @param {Context} context @param {number} row @param {(row: number) => void} go */
function sections(context, row, go) {
  const { data } = context;
  const value = (/** @type {string} */ column) => valueIn(data, column, row);
  /** @type {[string, Node | string][]} */
  const known = [];
  for (const prefix of compares(data) ? ["", "other_"] : [""]) {
    const of = prefix ? " (B)" : compares(data) ? " (A)" : "";
    const confidence = value(`${prefix}confidence`);
    if (confidence !== null) known.push([`confidence${of}`, bar(confidence, `confidence${of}`)]);
    const score = value(`${prefix}score`);
    if (score !== null) known.push([`${data.run.score ?? "score"}${of}`, decimals(score)]);
    const logprob = value(`${prefix}logprob`);
    if (logprob !== null) known.push([`log-probability${of}`, decimals(logprob)]);
    const flag = value(`${prefix}flag`);
    if (flag && prefix) known.push([`flag${of}`, flag]);
  }
  const mass = value("choice_mass");
  if (mass !== null) known.push(["mass on the choices", bar(mass, "mass on the choices")]);
  for (const extra of data.table.extra) {
    const given = extra.values[row] ?? null;
    if (given === null) continue;
    known.push([extra.name, typeof given === "object" ? JSON.stringify(given) : String(given)]);
  }
  return [
    known.length ? facts(known) : null,
    listed(
      "References",
      (value("references") ?? []).map((/** @type {string} */ text) => [text, null]),
    ),
    choices(value("probabilities")),
    candidates(value("candidates")),
    neighbours(context, value("neighbours"), go),
  ].filter((section) => section !== null);
}

/** @param {string} title @param {[string, string | Node | null][]} entries */
function listed(title, entries) {
  if (!entries.length) return null;
  const list = make("ul", "entries");
  for (const [text, note] of entries)
    list.append(make("li", "", foreign("span", "said", text), note));
  return make("section", "", make("h3", "", title), list);
}

/** @param {[string, number][] | null} probabilities */
function choices(probabilities) {
  const entries = (probabilities ?? []).map(([choice, share]) => [choice, bar(share, choice)]);
  return listed("Choices", /** @type {[string, Node][]} */ (entries));
}

/** @param {[string, number | null, number | null][] | null} given */
function candidates(given) {
  const entries = (given ?? []).map(([text, logprob, match]) => {
    const notes = [
      match === null || match === undefined ? "" : `match ${decimals(match)}`,
      logprob === null ? "" : `log-probability ${decimals(logprob)}`,
    ];
    return [text, make("small", "", notes.filter(Boolean).join(" · "))];
  });
  return listed("Candidates", /** @type {[string, Node][]} */ (entries));
}

/** @param {Context} context @param {[number, number][] | null} near @param {(row: number) => void} go */
function neighbours({ data, thumbnails }, near, go) {
  if (!near?.length) return null;
  const grid = make("ul", "neighbours");
  for (const [row, similarity] of near) {
    const name = String(valueIn(data, "file_name", row));
    const choice = button("", () => go(row), "neighbour");
    const image = thumbnails.draw(valueIn(data, "image", row) ?? -1, NEIGHBOUR_BOX, null);
    choice.append(
      make("span", "neighbour-image", image),
      foreign("span", "neighbour-name", name),
      make("small", "", decimals(similarity)),
    );
    grid.append(make("li", "", choice));
  }
  return make("section", "", make("h3", "", "Nearest images"), grid);
}
