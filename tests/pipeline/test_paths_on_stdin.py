"""Paths that somebody gives on stdin, perhaps waiting for the rows of those before."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from blip2cli.options import SourceOptions
from blip2cli.pipeline.events import Event, Progress, Started
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from tests.pipeline.helpers import CAPTION, Loader, options, read


def test_each_path_may_come_when_the_row_of_the_one_before_is_there(
    images: Path, tmp_path: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)
    paths = ["a.png", "c.webp", "d.png"]
    reading, writing = os.pipe()
    os.write(writing, f"{paths[0]}\n".encode())

    def answer(event: Event) -> None:
        if isinstance(event, Progress):
            if event.done < len(paths):
                os.write(writing, f"{paths[event.done]}\n".encode())
            else:
                os.close(writing)

    out = tmp_path / "out.jsonl"
    chosen = replace(options(images, out, 1), source=SourceOptions(("-",)))
    with open(reading, "rb") as stdin:
        run(Job(ImageItems(), CAPTION, chosen, load=loader, stdin=stdin), answer)
    assert [row["file_name"] for row in read(out)] == paths


def test_the_number_of_paths_is_known_where_they_end(
    images: Path, tmp_path: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)
    reading, writing = os.pipe()
    os.write(writing, b"a.png\nc.webp\n")
    os.close(writing)
    events: list[Event] = []
    chosen = replace(options(images, tmp_path / "out.jsonl"), source=SourceOptions(("-",)))
    with open(reading, "rb") as stdin:
        run(Job(ImageItems(), CAPTION, chosen, load=loader, stdin=stdin), events.append)
    assert [event.total for event in events if isinstance(event, Started)] == [2]
