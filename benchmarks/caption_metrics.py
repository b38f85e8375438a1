"""Captions: our BLEU, ROUGE-L, CIDEr and METEOR beside those of the package pycocoevalcap.

    python benchmarks/caption_metrics.py [--images 6000] [--seed 0] [--meteor 300] [--golden FILE]

It needs ``pip install pycocoevalcap==1.2`` and Java. Captions come from a written grammar
(``caption_grammar``). The figures, those of METEOR on the first images only, as it takes long, and
what the tokenizers make of each caption have to be equal. ``--golden`` writes what the tests
compare with.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.caption_grammar import corpus
from blip2cli.evaluate import bleu, cider, meteor, rouge
from blip2cli.evaluate.caption_tokens import CaptionTokens

LIMIT = 1e-6  # the largest difference that counts as equal
SAMPLE = 80  # captions whose words are written down


def figures_of(tokens: CaptionTokens) -> dict[str, float]:
    """Our figures."""
    found = bleu.figures(bleu.statistics(tokens).sum(axis=0, dtype=np.float64))
    figures = dict(zip(bleu.NAMES, found.tolist(), strict=True))
    return figures | {
        "rouge": float(rouge.scores(tokens).mean()),
        "cider": float(cider.scores(tokens).mean()),
    }


def words_of(tokens: CaptionTokens) -> list[str]:
    """The words of all candidates, then those of all references, each as one text."""
    words = list(tokens.words.keys())
    return [
        " ".join(words[number] for number in sentences.ids[start:end])
        for sentences in (tokens.candidates, tokens.references)
        for start, end in itertools.pairwise(sentences.ends.tolist())
    ]


def digest_of(words: list[str]) -> str:
    """A digest of tokenized captions."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def their_words(texts: list[str]) -> list[str]:
    """Each caption as the package's tokenizer writes it."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    found = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    return [found[i][0] for i in range(len(texts))]


def their_figures(pairs: list[tuple[str, list[str]]], words: list[str]) -> dict[str, float]:
    """The package's figures of captions that are ``words``: candidates, then references."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    candidates = {number: [text] for number, text in enumerate(words[: len(pairs)])}
    rest = iter(words[len(pairs) :])
    references = {n: [next(rest) for _ in texts] for n, (_, texts) in enumerate(pairs)}
    found = Bleu(4).compute_score(references, candidates, verbose=0)[0]
    figures = dict(zip(bleu.NAMES, found, strict=True))
    for name, scorer in (("rouge", Rouge()), ("cider", Cider())):
        figures[name] = float(scorer.compute_score(references, candidates)[0])
    return figures


def check_meteor(pairs: list[tuple[str, list[str]]], words: list[str]) -> None:
    """Compare METEOR of some images. ``words`` are those of all candidates, then references."""
    from pycocoevalcap.meteor.meteor import Meteor

    rest = iter(words[len(pairs) :])
    theirs = Meteor().compute_score(
        {n: [next(rest) for _ in texts] for n, (_, texts) in enumerate(pairs)},
        {n: [text] for n, text in enumerate(words[: len(pairs)])},
    )[0]
    jar = meteor.find_jar(None)
    assert jar is not None
    statistics = meteor.statistics(pairs, jar)
    (ours,) = statistics.figures(statistics.values.sum(axis=0))
    print(f"meteor ours {ours:.9f}  theirs {theirs:.9f}  of {len(pairs)} images")
    if abs(ours - theirs) > LIMIT:
        raise SystemExit("not equal")


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--meteor", type=int, default=300)
    parser.add_argument("--golden", type=Path)
    given = parser.parse_args()
    pairs = corpus(given.images, given.seed)
    texts = [candidate for candidate, _ in pairs]
    texts += [text for _, references in pairs for text in references]
    tokens, our_token_seconds = _timed(lambda: CaptionTokens.of(pairs))
    ours, our_seconds = _timed(lambda: figures_of(tokens))
    with contextlib.redirect_stdout(io.StringIO()):
        words, token_seconds = _timed(
            lambda: their_words(texts[: len(pairs)]) + their_words(texts[len(pairs) :])
        )
        theirs, their_seconds = _timed(lambda: their_figures(pairs, words))
    our_words = words_of(tokens)
    differing = [n for n, one in enumerate(our_words) if one != words[n]]
    print(f"{len(texts)} captions of {len(pairs)} images; {len(differing)} have other words")
    for number in differing[:10]:
        print(f"  {texts[number]!r}\n    ours   {our_words[number]}\n    theirs {words[number]}")
    for name, value in ours.items():
        print(f"{name:<6} ours {value:.9f}  theirs {theirs[name]:.9f}")
    our_seconds, their_seconds = our_seconds + our_token_seconds, their_seconds + token_seconds
    print(f"ours {our_seconds:.1f} s, theirs {their_seconds:.1f} s")
    largest = max(abs(value - theirs[name]) for name, value in ours.items())
    print(f"the largest difference is {largest:.1e}")
    if differing or largest > LIMIT:
        raise SystemExit("not equal")
    if given.meteor:
        some = pairs[: given.meteor]
        check_meteor(some, words_of(CaptionTokens.of(some)))
    print("equal")
    if given.golden is not None:
        step = len(texts) // SAMPLE
        golden = {
            "images": given.images,
            "seed": given.seed,
            "captions": len(texts),
            "figures": theirs,
            "digest": digest_of(words),
            "sample": [[*texts[n : n + 2], words[n]] for n in range(0, len(texts) - 1, step)],
        }
        text = json.dumps(golden, indent=1, ensure_ascii=False)
        given.golden.write_text(text + "\n", encoding="utf-8")


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
