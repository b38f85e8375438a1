"""Numbers of the loader that make no sense are refused, each by itself or together."""

from __future__ import annotations

from typing import Any

import pytest

from blip2cli.errors import OptionError
from blip2cli.options import LoaderOptions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "at least 1"),
        ({"workers": -1}, "at least 0"),
        ({"image_timeout": 0.0}, "positive"),
        ({"image_timeout": -1.0}, "positive"),
        ({"image_timeout": float("nan")}, "positive"),
        ({"workers": 0, "image_timeout": 5.0}, "workers 1"),
    ],
)
def test_numbers_that_make_no_sense(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        LoaderOptions(**wrong)
