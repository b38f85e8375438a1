"""Captioning: one text for every image, or the n best with their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Self

from blip2cli.errors import OptionError, option
from blip2cli.model.limits import check_writes
from blip2cli.options import CaptionOptions, DecodeOptions, RankOptions
from blip2cli.sinks.base import Column
from blip2cli.tasks.base import LOGPROB_DECIMALS, Row, blank, first_columns
from blip2cli.tasks.calibration import Calibration, settings_of
from blip2cli.tasks.ranking import rank_captions, ranking_columns
from blip2cli.tasks.text_generation import generate_texts

if TYPE_CHECKING:
    from blip2cli.images.batch_stream import LoadedBatch, LoadedImage
    from blip2cli.model.families import Family
    from blip2cli.model.wrapper import Blip2


@dataclass(frozen=True)
class CaptionTask:
    """One row per image: ``caption``, ``logprob``, ``flag`` and, of several captions,
    ``candidates``. The flag marks degenerate captions (see ``degenerate``). With a model to rank
    with, the caption is the candidate that fits the image best (see ``ranking``).

    ``options.prompt`` is the beginning of every caption (such as "a photo of"), and may hold
    columns of the source (see ``column_texts``); rows hold only what the model generates after it.
    """

    options: CaptionOptions = field(default_factory=CaptionOptions)
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    rank: RankOptions = field(default_factory=RankOptions)
    calibration: Calibration | None = None
    carried: tuple[str, ...] = ()  # names of the columns that come with each image

    name = "caption"
    only = None

    def __post_init__(self) -> None:
        if self.calibration is not None:
            self.calibration.check_task(self.name, choices=False, texts=True)

    @property
    def columns(self) -> tuple[Column, ...]:
        columns: tuple[Column, ...] = (
            Column("caption", "string"),
            Column("logprob", "float"),
            Column("flag", "string"),
        )
        several = self.decode.num_captions > 1
        if self.rank.rank_with is not None:
            columns += ranking_columns(self.rank, several)
        elif several:
            columns += (Column("candidates", "texts"),)
        return columns if self.calibration is None else self.calibration.with_columns(columns)

    @property
    def settings(self) -> dict[str, object]:
        settings = {"task": self.name} | self.options.settings | self.decode.settings
        settings |= self.rank.settings
        return settings | settings_of(self.calibration)

    @cached_property
    def columns_used(self) -> dict[str, str]:
        """The columns of the source in the prompt, with its option."""
        prompt = self.options.prompt or ""
        if "{" not in prompt:
            return {}
        from blip2cli.tasks.column_texts import all_columns

        return all_columns([("prompt", prompt, ())])

    def check(self, model: str, family: Family) -> None:
        check_writes(model, family)

    def fit(self, model: Blip2) -> Self:
        self.check(model.name, model.family)
        if self.columns_used:
            from blip2cli.tasks.column_texts import check_columns

            check_columns(self.columns_used, self.carried)
        if self.rank.rank_with is not None and model.ranker is None:
            raise OptionError(
                "rank_with",
                f"{option('rank_with')}: {model.name} was loaded without a model to rank with",
                "load both together",
            )
        return self

    def rows(self, model: Blip2, batch: LoadedBatch) -> list[Row]:
        from blip2cli.model.tokenizer.fill_prompt import Prompt

        rows = first_columns(batch)
        if not rows:
            return []
        features = model.features(batch.pixels)
        begins: Sequence[str | None] = [self._same_begin] * len(rows)
        if self.columns_used:
            begins = [self._begin(item) for item in batch.items if item.error is None]
        prompts = [
            Prompt(i, begin, str(row["file_name"]))
            for i, (row, begin) in enumerate(zip(rows, begins, strict=True))
        ]
        found = generate_texts(model, features, prompts, begins, self.decode)
        ranks = self.rank.rank_with is not None
        if ranks:
            ranked = rank_captions(model, batch.pixels, features, found, begins, self.rank)
            rows = [row | more for row, more in zip(rows, ranked, strict=True)]
        for row, generated in () if ranks else zip(rows, found, strict=True):
            texts = [
                {"text": text.text, "logprob": round(text.logprob, LOGPROB_DECIMALS)}
                for text in generated.texts
            ]
            row["caption"] = texts[0]["text"]
            row["logprob"] = texts[0]["logprob"]
            row["flag"] = generated.flag
            if self.decode.num_captions > 1:
                row["candidates"] = texts
        if self.calibration is not None:
            self.calibration.add_confidence(rows, "caption", model)
        return rows

    def screened(self, model: Blip2, batch: LoadedBatch) -> LoadedBatch:
        """``batch``, in which images failed whose columns do not fit into the prompt."""
        from blip2cli.tasks import column_texts as texts

        def check(item: LoadedImage) -> None:
            texts.check_tokens(model, self._values(item))
            texts.check_prompt_length(model, self._begin(item), self.decode.max_new_tokens)

        return texts.screened(batch, check)

    def row_count(self, file_name: str) -> int:
        return 1

    def failed_rows(self, item: LoadedImage) -> list[Row]:
        return [blank(item, self.columns)]

    def _begin(self, item: LoadedImage) -> str:
        from blip2cli.model.tokenizer.fill_prompt import fill_in

        return fill_in(self.options.prompt or "", self._values(item))

    def _values(self, item: LoadedImage) -> dict[str, str]:
        from blip2cli.tasks.column_texts import column_values

        return column_values(item, self.carried, self.columns_used)

    @cached_property
    def _same_begin(self) -> str | None:
        """The prompt of every image, where it holds no column."""
        from blip2cli.model.tokenizer.fill_prompt import fill_in

        return self.options.prompt and fill_in(self.options.prompt, {})
