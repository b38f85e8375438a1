"""Shares of one output: labelled, and compared with the output of one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from blip2cli.options import DecodeOptions
from blip2cli.pipeline.events import Summary
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import parquet_settings, read_settings
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.questions import from_texts

SHORT = DecodeOptions(max_new_tokens=3)
CAPTION = CaptionTask(decode=SHORT)
ASK = AskTask(from_texts(["red?", "how many?"]), decode=SHORT)
Label = Callable[..., Summary]


def shares(label: Label, count: int, suffix: str, *args: Any, **options: Any) -> str:
    """Label all shares; returns the pattern of their outputs."""
    for index in range(1, count + 1):
        label(args[0], f"out-{{shard}}{suffix}", f"{index}/{count}", **options)
    return f"out-*{suffix}"


def settings_of(path: str) -> Any:
    """What an output knows of its making, beside what is its own alone."""
    beside = read_settings(OutputPaths.of(path))
    assert beside is not None
    own = parquet_settings(pq.read_schema(path).metadata) if path.endswith(".parquet") else None
    return {**vars(beside), "token": ""}, own


def same_output(out: str, other: str) -> None:
    """Two outputs are the same bytes, with the same failures and settings beside them."""
    assert Path(out).read_bytes() == Path(other).read_bytes()
    lists = [Path(f"{path}.errors") for path in (out, other)]
    assert len({one.read_bytes() if one.exists() else None for one in lists}) == 1
    assert settings_of(out) == settings_of(other)
