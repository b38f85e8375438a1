"""The options of writing text: decoding, captions, questions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

from blip2cli.errors import OptionError, option
from blip2cli.options.declare import DECODING, QUESTIONS, OptionGroup, declare

Norm = Literal["sum", "mean", "pmi", "prior"]

# Presets: the settings of a published evaluation under one name, as other defaults of options.
# BLIP-2 (arXiv 2301.12597), sections 4.1 and 4.2, and the configurations of LAVIS. The prompt of
# questions is the one of the model's family, so the template stays auto.
_PRESETS: dict[str, dict[str, Any]] = {
    "paper-vqa": {
        "template": "auto",
        "num_beams": 5,
        "length_penalty": -1.0,
        "max_new_tokens": 10,
    },
    "paper-caption": {
        "prompt": "a photo of",
        "num_beams": 5,
        "min_new_tokens": 8,
        "max_new_tokens": 30,
    },
}

_decoding = partial(declare, panel=DECODING, shapes_rows=True, about_images=False)
_question = partial(declare, panel=QUESTIONS, about_images=False)
_recorded_question = partial(_question, shapes_rows=True)
_unrecorded_question = partial(_question, shapes_rows=False)
_preset = partial(
    declare,
    None,
    help=(
        "Decode as the BLIP-2 paper does: captions with beam 5, the prompt 'a photo of' and 8 to "
        "30 new tokens; answers with the family's template, beam 5, length penalty -1 and at most "
        "10 new tokens. Options beside it win."
    ),
    brief="Decode as the BLIP-2 paper does: {choices}.",
    presets=_PRESETS,
    panel=DECODING,
    shapes_rows=False,  # the options that it sets do
    about_images=False,
)

# Options whose range has another form than a smallest value: name, test, words, remedy.
_RANGES: tuple[tuple[str, Callable[[Any], bool], str, str], ...] = (
    ("repetition_penalty", lambda x: 0 < x < math.inf, "above 0 (1 is none), not {}", ""),
    ("length_penalty", math.isfinite, "a finite number", ""),
    (
        "temperature",
        lambda x: 0 < x < math.inf,
        "above 0, not {}",
        "leave it out to decode greedily",
    ),
    ("top_p", lambda p: 0 < p <= 1, "above 0 and at most 1, not {}", ""),
    ("top_k", lambda k: k >= 1, "at least 1, not {}", ""),
)


@dataclass(frozen=True)
class DecodeOptions(OptionGroup):
    """How text is decoded. Greedy unless beams or a sampling option is given."""

    max_new_tokens: int = _decoding(
        30, "Longest text, in tokens.", metavar="N", minimum=1, brief=True
    )
    min_new_tokens: int = _decoding(0, "Shortest text, in tokens.", metavar="N", minimum=0)
    num_beams: int = _decoding(
        1, "Beams searched; 1 is greedy.", metavar="N", minimum=1, brief=True
    )
    # Texts of one prompt, best first
    num_captions: int = _decoding(
        1,
        f"Captions an image, best first; needs {option('num_beams')} or drawing.",
        metavar="N",
        minimum=1,
        brief="Captions an image, best first.",
    )
    # Any of the three switches sampling on.
    temperature: float | None = _decoding(
        None, "Draw the text; above 1 wilder, below 1 tamer.", metavar="X"
    )
    top_p: float | None = _decoding(
        None, "Draw from the likeliest tokens that sum to P.", metavar="P"
    )
    top_k: int | None = _decoding(None, "Draw from the K likeliest tokens.", metavar="K")
    repetition_penalty: float = _decoding(
        1.0, "Above 1, tokens already used become unlikelier.", metavar="X"
    )
    length_penalty: float = _decoding(
        1.0, "With beams: above 0 favours longer texts, below 0 shorter.", metavar="X"
    )
    no_repeat_ngram_size: int = _decoding(
        0, "No run of N tokens comes twice; 0 allows all.", metavar="N", minimum=0
    )
    seed: int = _decoding(
        0, "Seed of drawn texts; with the image's name it fixes them.", metavar="N"
    )
    # Texts that are flagged are decoded once more, without repeats.
    retry_degenerate: bool = _decoding(
        False, "Decode texts again that repeat themselves or the question, or are empty."
    )

    @cached_property
    def sampling(self) -> bool:
        """True when text is drawn instead of taken greedily."""
        return any(v is not None for v in (self.temperature, self.top_p, self.top_k))

    @property
    def settings(self) -> dict[str, object]:
        """The options that can change a text; what is off is null, as in older outputs.

        Without the seed where nothing is drawn: runs that differ only in it are the same.
        """
        settings = super().settings | {"retry_degenerate": self.retry_degenerate or None}
        if not self.sampling:
            del settings["seed"]
        return settings

    def __post_init__(self) -> None:
        """Raise ``OptionError`` for values out of range, or that contradict one another."""
        super().__post_init__()
        if self.min_new_tokens > self.max_new_tokens:
            raise OptionError(
                "min_new_tokens",
                f"{option('min_new_tokens')} {self.min_new_tokens} is more than "
                f"{option('max_new_tokens')} {self.max_new_tokens}",
            )
        for name, fits, must_be, remedy in _RANGES:
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise OptionError(name, f"{option(name)} must be {must_be.format(value)}", remedy)
        if self.sampling and self.num_beams > 1:
            raise OptionError(
                "num_beams",
                f"{option('num_beams')} searches and {option('temperature')}, {option('top_p')} "
                f"and {option('top_k')} draw",
                "give one or the other",
            )
        if self.num_captions > 1 and not self.sampling:
            needed = f"{self.num_captions} captions an image need {option('num_beams')}"
            if self.num_beams == 1:
                raise OptionError(
                    "num_captions",
                    f"{needed} {self.num_captions} or more, or {option('temperature')} to draw "
                    "them: greedy decoding has only one",
                )
            if self.num_captions > self.num_beams:
                raise OptionError(
                    "num_captions",
                    f"{needed} {self.num_captions} or more, not {self.num_beams}",
                )
        if self.length_penalty != 1.0 and self.num_beams == 1:
            raise OptionError(
                "length_penalty",
                f"{option('length_penalty')} only acts in beam search",
                f"add {option('num_beams')} 5",
            )


@dataclass(frozen=True)
class CaptionOptions(OptionGroup):
    """What a caption begins with."""

    prompt: str | None = declare(
        None,
        "Text the caption goes on from; the row holds what comes after it. {COLUMN} in it is a "
        "column of the source, such as 'a photo of {alt}'.",
        metavar="TEXT",
        panel=DECODING,
        shapes_rows=True,
        about_images=False,
        brief="Text the caption goes on from; may hold {COLUMN}.",
        offers="texts",
        columns_of=("sources",),
    )
    preset: Literal["paper-caption"] | None = _preset()


@dataclass(frozen=True)
class AskOptions(OptionGroup):
    """What is asked, and the answers there are. Which of them shape rows is the task's to say:
    the questions themselves are compared, not the file they came from."""

    question: tuple[str, ...] = _unrecorded_question(
        (),
        "A question for every image; repeatable. {answer} in it is the answer before it, {COLUMN} "
        "a column of the source.",
        short="-q",
        metavar="TEXT",
        brief="A question for every image; repeatable.",
        offers="texts",
        columns_of=("sources",),
    )
    questions: str | None = _unrecorded_question(
        None,
        "A .txt with one question a line, or a .jsonl, .csv or .tsv table with "
        "file_name, question and, if wanted, question_id, choices, and the right answer or "
        "answers, with which those of the model are compared at the end.",
        metavar="FILE",
        brief="A .txt with a question a line, or a table.",
    )
    template: str = _recorded_question(
        "auto",
        "What the model reads: auto, or a text that holds {question} (a retrieval model: "
        "{choice}).",
        metavar="TEXT",
        offers=("auto",),
    )
    choices: str | None = _unrecorded_question(
        None,
        "The answers there are, separated by commas; rows get the probability of each. They may "
        "hold {COLUMN}.",
        metavar="A,B,…",
        brief="The answers there are; rows get their probabilities.",
        offers="texts",
        columns_of=("questions", "sources"),
    )
    choices_file: str | None = _unrecorded_question(
        None, "The answers there are, one a line; they may hold commas.", metavar="FILE"
    )
    choices_column: str | None = _unrecorded_question(
        None,
        f"The column of the table {option('questions')}, else of the source, that holds choices: a "
        "text, or a list of texts, such as caption, candidates or answer of rows that exist "
        "already.",
        metavar="COLUMN",
        columns_of=("questions", "sources"),
    )
    choice_norm: Norm | None = _recorded_question(
        None,
        "Choices compare by the log-probability of the whole text (sum), of a token (mean), less "
        "that under a blank image (pmi), or less what their length explains (prior).",
        default_help="sum, or that of the calibration",
    )
    choice_scores: bool = _recorded_question(
        False,
        "Rows also hold the log-probability of each choice, its tokens, and the log-probability "
        "under a blank image: what every norm is made of, for calibrate.",
    )
    match: bool = _recorded_question(
        False, "A retrieval model compares with its matching head: slower, more exact."
    )
    preset: Literal["paper-vqa"] | None = _preset()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_both("question", "questions", "questions")
        self._refuse_both("choices", "choices_file", "choices")
        if self.questions is None:  # else they are those of questions without any of their own
            self._refuse_both("choices", "choices_column", "choices")
            self._refuse_both("choices_file", "choices_column", "choices")
