"""The options of decoding, which ``caption`` and ``ask`` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from blip2cli.cli.flags.declare import DECODING, option
from blip2cli.options import DecodeOptions

_DECODE = DecodeOptions()


@dataclass(frozen=True)
class DecodeFlags:
    """How text is decoded."""

    max_new_tokens: Annotated[
        int,
        option(
            "--max-new-tokens", metavar="N", min=1, panel=DECODING, help="Longest text, in tokens."
        ),
    ] = _DECODE.max_new_tokens
    min_new_tokens: Annotated[
        int,
        option(
            "--min-new-tokens", metavar="N", min=0, panel=DECODING, help="Shortest text, in tokens."
        ),
    ] = _DECODE.min_new_tokens
    num_beams: Annotated[
        int,
        option(
            "--num-beams", metavar="N", min=1, panel=DECODING, help="Beams searched; 1 is greedy."
        ),
    ] = _DECODE.num_beams
    temperature: Annotated[
        float | None,
        option(
            "--temperature",
            metavar="X",
            panel=DECODING,
            help="Draw the text; above 1 wilder, below 1 tamer.",
        ),
    ] = None
    top_p: Annotated[
        float | None,
        option(
            "--top-p",
            metavar="P",
            panel=DECODING,
            help="Draw from the likeliest tokens that sum to P.",
        ),
    ] = None
    top_k: Annotated[
        int | None,
        option("--top-k", metavar="K", panel=DECODING, help="Draw from the K likeliest tokens."),
    ] = None
    repetition_penalty: Annotated[
        float,
        option(
            "--repetition-penalty",
            metavar="X",
            panel=DECODING,
            help="Above 1, tokens already used become unlikelier.",
        ),
    ] = _DECODE.repetition_penalty
    length_penalty: Annotated[
        float,
        option(
            "--length-penalty",
            metavar="X",
            panel=DECODING,
            help="With beams: above 0 favours longer texts, below 0 shorter.",
        ),
    ] = _DECODE.length_penalty
    no_repeat_ngram_size: Annotated[
        int,
        option(
            "--no-repeat-ngram-size",
            metavar="N",
            min=0,
            panel=DECODING,
            help="No run of N tokens comes twice; 0 allows all.",
        ),
    ] = _DECODE.no_repeat_ngram_size
    seed: Annotated[
        int,
        option(
            "--seed",
            metavar="N",
            panel=DECODING,
            help="Seed of drawn texts; with the image's name it fixes them.",
        ),
    ] = _DECODE.seed
    retry_degenerate: Annotated[
        bool,
        option(
            "--retry-degenerate",
            panel=DECODING,
            help="Decode texts again that repeat themselves or the question, or are empty.",
        ),
    ] = False

    def options(self, num_return: int = 1) -> DecodeOptions:
        return DecodeOptions(
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=self.min_new_tokens,
            num_beams=self.num_beams,
            num_return=num_return,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            length_penalty=self.length_penalty,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            seed=self.seed,
            retry_degenerate=self.retry_degenerate,
        )
