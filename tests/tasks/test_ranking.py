"""Rows of ranked captions: the best becomes the caption, or is kept back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2cli.errors import OptionError
from blip2cli.images.batch_stream import LoadedBatch
from blip2cli.model.checkpoint.ranker import RankerSpec
from blip2cli.model.generation import Generated
from blip2cli.model.load_ranked import load_ranked
from blip2cli.model.retrieval import Pair
from blip2cli.model.wrapper import Blip2
from blip2cli.options import CaptionOptions, DecodeOptions, ModelOptions, RankBy, RankOptions
from blip2cli.sinks.base import Column, RowSchema
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.ranking import rank_captions
from blip2cli.tasks.text_generation import FlaggedTexts
from tests.tasks.helpers import load

SEVERAL = DecodeOptions(num_beams=5, num_captions=5)
RANKED = RankOptions("tiny-itm")


@pytest.fixture(scope="module")
def tiny() -> Blip2:
    return load_ranked(ModelOptions("tiny", device="cpu"), None, RankerSpec("tiny-itm"))


@pytest.fixture
def batch(mixed: Path, tiny: Blip2) -> LoadedBatch:
    return load(mixed, tiny)


@pytest.mark.parametrize("by", ["match", "contrast"])
def test_the_best_candidate_is_the_caption(tiny: Blip2, batch: LoadedBatch, by: RankBy) -> None:
    plain = CaptionTask(decode=SEVERAL).rows(tiny, batch)
    task = CaptionTask(decode=SEVERAL, rank=RankOptions("tiny-itm", by)).fit(tiny)
    schema = RowSchema.of(task.columns, inline_errors=False)
    ranked: list[dict[str, Any]] = [schema.complete(row) for row in task.rows(tiny, batch)]
    assert tiny.ranker is not None
    features = tiny.features(batch.pixels)
    for image, (row, before) in enumerate(zip(ranked, plain, strict=True)):
        candidates = row["candidates"]
        assert sorted((c["text"], c["logprob"]) for c in candidates) == sorted(
            (c["text"], c["logprob"])
            for c in before["candidates"]  # type: ignore[attr-defined]
        )
        scores = [c["match"] for c in candidates]
        assert scores == sorted(scores, reverse=True)
        assert candidates[0] == {
            "text": row["caption"],
            "logprob": row["logprob"],
            "match": row["match"],
        }
        pairs = [Pair(image, c["text"]) for c in candidates]
        wanted = tiny.ranker.scores(batch.pixels, features, pairs, by)
        assert scores == pytest.approx(wanted, rel=1e-7)
    failed = next(item for item in batch.items if item.error is not None)
    (row,) = map(schema.complete, task.failed_rows(failed))
    assert [row[name] for name in ("caption", "match", "candidates")] == [None] * 3


def test_columns() -> None:
    first = (Column("caption", "string"), Column("logprob", "float"), Column("flag", "string"))
    match, guess = Column("match", "float"), Column("guess", "string")
    candidates = Column("candidates", "ranked")
    assert CaptionTask(decode=SEVERAL, rank=RANKED).columns == (*first, match, candidates)
    task = CaptionTask(decode=SEVERAL, rank=RankOptions("tiny-itm", min_match=0.5))
    assert task.columns == (*first, match, guess, candidates)
    assert CaptionTask(rank=RANKED).columns == (*first, match)  # one caption is scored


class StubRanker:
    """Scores texts by a table, and notes what it is asked."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scored = scores
        self.pairs: list[Pair] = []

    def scores(
        self, pixels: object, features: object, pairs: Sequence[Pair], by: RankBy
    ) -> list[float]:
        self.pairs += pairs
        return [self.scored[pair.text] for pair in pairs]


def ranked(
    scores: dict[str, float],
    found: FlaggedTexts,
    options: RankOptions = RANKED,
    prompt: str | None = None,
) -> dict[str, Any]:
    model: Any = type("Model", (), {"ranker": StubRanker(scores)})
    (row,) = rank_captions(model, torch.zeros(1), Any, [found], [prompt], options)  # type: ignore[arg-type]
    assert [pair.image for pair in model.ranker.pairs] == [0] * len(found.texts)
    return row


def texts(*pairs: tuple[str, float], flag: Any = "") -> FlaggedTexts:
    return FlaggedTexts([Generated(text, (), logprob) for text, logprob in pairs], flag)


def test_equal_scores_keep_the_likelier_first_and_the_flag_is_the_captions_own() -> None:
    found = texts(("a dog dog dog dog", -0.1), ("a cat", -0.3), ("a cow", -0.4), flag="repetition")
    row = ranked({"a dog dog dog dog": 0.1, "a cat": 0.9, "a cow": 0.9}, found)
    assert [row[name] for name in ("caption", "logprob", "flag", "match")] == [
        *("a cat", -0.3, "", 0.9)
    ]
    assert [each["text"] for each in row["candidates"]] == ["a cat", "a cow", "a dog dog dog dog"]
    row = ranked({"a dog dog dog dog": 0.95, "a cat": 0.9, "a cow": 0.9}, found)
    assert (row["caption"], row["flag"]) == ("a dog dog dog dog", "repetition")
    again = texts(("a cat", -0.1), ("a cow", -0.3), flag="retried")
    assert ranked({"a cat": 0.2, "a cow": 0.3}, again)["flag"] == "retried"


def test_below_the_threshold_the_caption_is_kept_back() -> None:
    options = RankOptions("tiny-itm", min_match=0.5)
    found = texts(("a cat", -0.1), ("a cow", -0.3), flag="retried")
    row = ranked({"a cat": 0.2, "a cow": 0.49999999}, found, options)
    assert (row["caption"], row["flag"], row["guess"]) == (None, "abstained", "a cow")
    assert (row["match"], row["logprob"]) == (0.49999999, -0.3)
    # What is shown decides.
    row = ranked({"a cat": 0.2, "a cow": 0.4999999999}, found, options)
    assert (row["caption"], row["flag"], row["guess"], row["match"]) == (
        *("a cow", "retried", "a cow", 0.5),
    )


def test_the_whole_sentence_is_compared() -> None:
    found = texts(("a cat", -0.1), ("", -0.3))
    row = ranked({"a photo of a cat": 0.2, "a photo of": 0.1}, found, prompt="a photo of")
    assert row["caption"] == "a cat"


def test_a_row_is_the_same_in_any_batch(tiny: Blip2, batch: LoadedBatch) -> None:
    decode = DecodeOptions(temperature=1.5, num_captions=3, seed=4)
    for by in ("match", "contrast"):
        task = CaptionTask(CaptionOptions("two"), decode, RankOptions("tiny-itm", by))
        whole = task.rows(tiny, batch)
        good = [item for item in batch.items if item.error is None]
        single = [
            row
            for number, item in enumerate(good)
            for row in task.rows(tiny, LoadedBatch((item,), batch.pixels[number, None]))
        ]
        assert whole == single


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank_by": "contrast"}, "rank_by is about scores of a retrieval model"),
        ({"min_match": 0.5}, "min_match is about scores"),
        ({"rank_with": "tiny-itm", "min_match": 1.5}, "min_match is a probability, from 0 to 1"),
        ({"rank_with": "tiny-itm", "min_match": float("nan")}, "min_match is a probability"),
        (
            {"rank_with": "tiny-itm", "rank_by": "contrast", "min_match": 0.5},
            "cosines of different images cannot be compared",
        ),
        ({"rank_with": "tiny-itm", "rank_by": "both"}, "choose match or contrast"),
    ],
)
def test_options_that_make_no_sense(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        RankOptions(**wrong)


def test_a_model_without_another_beside_it_does_not_rank(model: Blip2) -> None:
    with pytest.raises(OptionError, match="was loaded without a model to rank with"):
        CaptionTask(rank=RANKED).fit(model)
