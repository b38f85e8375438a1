from __future__ import annotations

import io
import json
import os

import pytest

from blip2cli.errors import RunError
from blip2cli.options import OutputOptions
from blip2cli.sinks import open_sink
from tests.sinks.helpers import COLUMNS, row


def test_lines_are_flushed_batch_by_batch() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "wb") as stream:
        sink = open_sink(OutputOptions("-"), COLUMNS, {}, stream)
        sink.write([row(0), row(1, "two\nlines", "caf\udce9.png")])
        assert json.loads(reader.readline()) == row(0)
        assert json.loads(reader.readline()) == row(1, "two\nlines", "caf\\udce9.png")
        sink.commit()
        sink.close()
        assert not stream.closed


def test_a_reader_that_went_away() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb", buffering=0) as stream:
        sink = open_sink(OutputOptions(None), COLUMNS, {}, stream)
        with pytest.raises(BrokenPipeError):
            sink.write([row(0)])


def test_a_full_disk_behind_a_redirection() -> None:
    with open("/dev/full", "wb", buffering=0) as stream:
        sink = open_sink(OutputOptions(None), COLUMNS, {}, stream)
        with pytest.raises(RunError, match=r"'stdout' failed .No space left"):
            sink.write([row(0)])


def test_inline_errors_too() -> None:
    stream = io.BytesIO()
    open_sink(OutputOptions(errors="inline"), COLUMNS, {}, stream).write([row(0)])
    assert json.loads(stream.getvalue())["error"] is None
