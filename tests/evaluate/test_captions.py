"""Captions: words, BLEU, ROUGE-L and CIDEr equal those of pycocoevalcap 1.2.

The golden values were written by ``benchmarks/caption_metrics.py``, which runs the package.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.caption_grammar import corpus
from benchmarks.caption_metrics import digest_of, figures_of, words_of
from blip2cli.evaluate import bleu, cider, rouge
from blip2cli.evaluate.caption_tokens import CaptionTokens
from blip2cli.evaluate.ptb_tokenizer import tokenize

GOLDEN = json.loads((Path(__file__).parent / "golden" / "captions.json").read_text("utf-8"))


def test_words_and_figures_are_those_of_the_package() -> None:
    tokens = CaptionTokens.of(corpus(GOLDEN["images"], GOLDEN["seed"]))
    words = words_of(tokens)
    assert len(words) == GOLDEN["captions"] >= 20_000
    assert [" ".join(tokenize(text, following)) for text, following, _ in GOLDEN["sample"]] == [
        expected for *_, expected in GOLDEN["sample"]
    ]
    assert digest_of(words) == GOLDEN["digest"]
    assert figures_of(tokens) == pytest.approx(GOLDEN["figures"], abs=1e-9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man isn't riding.", "a man is n't riding"),
        ("black-and-white dogs' 3.5 m (tail);", "black-and-white dogs 3.5 m -lrb- tail -rrb-"),
        ("½ pizza, she cannot; 1,000 at 10:30 a.m.", "1/2 pizza she can not 1,000 at 10:30 a.m."),
        ('"stop" he said... we\'re gonna go!', "stop he said we 're gon na go"),
        ("mr. smith no. 5 no. vs. $5.50 £3 50%", "mr. smith no. 5 no vs. $ 5.50 # 3 50 %"),
        ("don’t — “curly” o'clock 'tis y'all", "do n't curly o'clock 't is y' all"),
        ("", ""),
        ("...", ""),
        ("a\nb\r\nc", "a b c"),
    ],
)
def test_some_words(text: str, words: str) -> None:
    assert " ".join(tokenize(text)) == words


def test_the_caption_behind_is_looked_at_as_the_package_does() -> None:
    assert tokenize("the letter A.", "The cat") == ["the", "letter", "a"]
    assert tokenize("the letter A.", "the cat") == ["the", "letter", "a."]
    assert tokenize("a sign says no.", "5 cats") == ["a", "sign", "says", "no."]
    assert tokenize("a sign says no.", "Five cats") == ["a", "sign", "says", "no"]
    tokens = CaptionTokens.of([("a.", ["a."]), ("The cat", ["the cat"])])
    assert list(tokens.words.keys()) == ["a", "a.", "the", "cat"]


def figures(pairs: list[tuple[str, list[str]]]) -> dict[str, float]:
    return figures_of(CaptionTokens.of(pairs))


def test_one_image_has_no_cider() -> None:
    assert figures([("a red cat", ["a red cat", "a cat"])])["cider"] == 0.0


def test_empty_captions_score_nothing_and_break_nothing() -> None:
    found = figures([("", ["a red cat"]), ("a dog runs by", ["a dog runs by"]), ("x", [""])])
    assert found["rouge"] == pytest.approx(1 / 3)
    assert 0 < found["bleu1"] < 1
    tokens = CaptionTokens.of([("", [""]), ("", ["", "a"])])
    assert rouge.scores(tokens).tolist() == [1.0, 1.0]  # as there: an empty text is a word
    assert cider.scores(tokens).tolist() == [0.0, 0.0]
    assert np.isfinite(bleu.figures(bleu.statistics(tokens))).all()


def test_bleu_takes_the_shorter_of_two_lengths_as_close() -> None:
    tokens = CaptionTokens.of([("a b c", ["a b", "a b c d"])])
    assert bleu.statistics(tokens)[0, -1] == 2
