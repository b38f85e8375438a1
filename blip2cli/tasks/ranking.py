"""Captions ranked by how well they fit the image, by a retrieval model beside the one that wrote.

The text that is compared is the whole sentence: the prompt, and what was written after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from blip2cli.options import RankOptions
from blip2cli.sinks.base import Column
from blip2cli.tasks.base import ABSTAINED, LOGPROB_DECIMALS, Row
from blip2cli.tasks.degenerate import flag_of

if TYPE_CHECKING:
    from torch import Tensor

    from blip2cli.model.generation import Generated
    from blip2cli.model.vision.features import ImageFeatures
    from blip2cli.model.wrapper import Blip2
    from blip2cli.tasks.text_generation import FlaggedTexts


def ranking_columns(options: RankOptions, several: bool) -> tuple[Column, ...]:
    """The columns of ranked captions behind those of any; ``several``: of more than one."""
    guess = (Column("guess", "string"),) if options.min_match is not None else ()
    candidates = (Column("candidates", "ranked"),) if several else ()
    return (Column("match", "float"), *guess, *candidates)


def rank_captions(
    model: Blip2,
    pixels: Tensor,
    features: ImageFeatures,
    found: Sequence[FlaggedTexts],
    prompts: Sequence[str | None],
    options: RankOptions,
) -> list[Row]:
    """The columns of each image's row, that of candidates included, which are the best first.

    ``pixels`` and ``features`` are those of the images of ``found``. Among equal candidates the
    likelier comes first. The flag is that of the caption; below ``min_match`` it is ``abstained``.
    """
    from blip2cli.model.retrieval import Pair

    assert model.ranker is not None  # ``fit`` has seen to it
    pairs = [
        Pair(image, f"{(prompt or '').strip()} {text.text}".strip())
        for image, (generated, prompt) in enumerate(zip(found, prompts, strict=True))
        for text in generated.texts
    ]
    scores = iter(model.ranker.scores(pixels, features, pairs, options.rank_by))
    return [
        _columns(generated, islice(scores, len(generated.texts)), prompt, options)
        for generated, prompt in zip(found, prompts, strict=True)
    ]


def _columns(
    generated: FlaggedTexts, scores: Iterable[float], prompt: str | None, options: RankOptions
) -> Row:
    ranked = sorted(zip(scores, generated.texts, strict=True), key=lambda pair: -pair[0])
    candidates = [_candidate(*pair) for pair in ranked]
    best = candidates[0]
    text, match = ranked[0][1].text, _shown(ranked[0][0])
    flag: str = flag_of(text, prompt) or (generated.flag if generated.flag == "retried" else "")
    row = {"caption": text, "logprob": best["logprob"], "flag": flag, "match": match}
    if options.min_match is not None:
        row["guess"] = text
        if match < options.min_match:
            row |= {"caption": None, "flag": ABSTAINED}
    if len(candidates) > 1:
        row["candidates"] = candidates
    return row


def _candidate(score: float, text: Generated) -> dict[str, object]:
    logprob = round(text.logprob, LOGPROB_DECIMALS)
    return {"text": text.text, "logprob": logprob, "match": _shown(score)}


def _shown(score: float) -> float:
    """A score to eight significant digits, a little more than it is worth."""
    return float(f"{score:.8g}")
