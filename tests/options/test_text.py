from __future__ import annotations

from typing import Any

import pytest

from blip2cli.errors import OptionError
from blip2cli.options import DecodeOptions


@pytest.mark.parametrize(
    "fine",
    [
        {},
        {"num_beams": 5, "num_captions": 5, "length_penalty": -1.0},
        {"temperature": 0.7, "num_captions": 20},
        {"top_k": 1},
        {"top_p": 1.0},
        {"min_new_tokens": 30},
    ],
)
def test_options_that_go_together(fine: dict[str, Any]) -> None:
    DecodeOptions(**fine)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"num_captions": 3}, "num_beams 3 or more, or temperature"),
        ({"num_captions": 6, "num_beams": 5}, "num_beams 6 or more, not 5"),
        ({"num_beams": 2, "top_p": 0.9}, "give one or the other"),
        ({"length_penalty": 2.0}, "add num_beams 5"),
        ({"length_penalty": float("nan"), "num_beams": 2}, "finite"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"min_new_tokens": 31}, "min_new_tokens 31 is more than max_new_tokens 30"),
        ({"min_new_tokens": -1}, "at least 0"),
        ({"num_beams": 0}, "num_beams must be at least 1"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"repetition_penalty": 0.0}, "above 0"),
        ({"repetition_penalty": float("inf")}, "above 0"),
        ({"temperature": 0.0}, "leave it out to decode greedily"),
        ({"top_p": 1.5}, "at most 1"),
        ({"top_p": 0.0}, "above 0"),
        ({"top_k": 0}, "top_k must be at least 1"),
    ],
)
def test_options_that_do_not(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        DecodeOptions(**wrong)
