/** The words in which two texts differ. */

/** @typedef {{text: string, differs: boolean}} Piece */

const MOST_STEPS = 250_000;

/** Both texts in pieces of words that stand in the other, in the same order, or do not.
 *
 * The longest common subsequence of words, by the usual table. Texts whose table would be huge
 * differ as a whole.
 * @param {string} first @param {string} second @returns {[Piece[], Piece[]]} */
export function differences(first, second) {
  const [a, b] = [wordsOf(first), wordsOf(second)];
  if (a.length * b.length > MOST_STEPS) {
    const differs = first !== second;
    return [[{ text: first, differs }], [{ text: second, differs }]];
  }
  // common[i][j]: the length of what a from i on and b from j on have in common.
  const common = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      common[i][j] =
        a[i] === b[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    }
  }
  /** @type {[Piece[], Piece[]]} */
  const pieces = [[], []];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      append(pieces[0], a[i++], false);
      append(pieces[1], b[j++], false);
    } else if (j === b.length || (i < a.length && common[i + 1][j] >= common[i][j + 1])) {
      append(pieces[0], a[i++], true);
    } else {
      append(pieces[1], b[j++], true);
    }
  }
  return pieces;
}

/** @param {string} text @returns {string[]} */
function wordsOf(text) {
  return text.split(/\s+/u).filter((word) => word !== "");
}

/** Adds a word to the last piece where both differ or neither does.
 * @param {Piece[]} pieces @param {string} word @param {boolean} differs */
function append(pieces, word, differs) {
  const last = pieces.at(-1);
  if (last && last.differs === differs) last.text += ` ${word}`;
  else pieces.push({ text: word, differs });
}

/** How many words a text has. @param {string} text */
export function wordCount(text) {
  return wordsOf(text).length;
}
