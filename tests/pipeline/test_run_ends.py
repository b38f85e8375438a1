"""How a run ends before its source does: signals, errors, a full disk, a closed pipe."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from blip2cli.errors import RunError, SourceError
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    ModelOptions,
)
from blip2cli.pipeline.events import Event, Progress
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.plan import Plan
from blip2cli.pipeline.run import run
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.embed import EmbedTask
from tests.pipeline.helpers import CAPTION, SHORT, Loader, options, read


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal with a handler of its own, whatever whoever runs the tests ignores."""
    before = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_ends_the_run_after_the_batch(
    number: signal.Signals,
    images: Path,
    tmp_path: Path,
    loader: Loader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("blip2cli.model.placement.batch_size.batch_threads", lambda model: 1)
    out = tmp_path / "out.jsonl"

    def interrupt(event: Event) -> None:
        if isinstance(event, Progress):
            os.kill(os.getpid(), number)

    summary = run(Job(ImageItems(), CAPTION, options(images, out), load=loader), interrupt)
    assert summary.exit_code == 128 + number
    assert summary.done == 2
    assert signal.getsignal(number) is signal.default_int_handler
    assert [row["file_name"] for row in read(out)] == ["a.png", "b.jpg"]


def test_an_ignored_signal_stays_ignored(images: Path, loader: Loader) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        summary = run(
            Job(ImageItems(), EmbedTask(), options(images), load=loader, stdout=io.BytesIO()),
            lambda event: os.kill(os.getpid(), signal.SIGINT),
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert (summary.exit_code, summary.done) == (0, 5)


def test_a_signal_while_the_model_loads_leaves_nothing(images: Path, tmp_path: Path) -> None:
    def slow(options: ModelOptions) -> Blip2:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not get through")

    summary = run(Job(ImageItems(), CAPTION, options(images, tmp_path / "out.jsonl"), load=slow))
    assert summary.exit_code == 143
    assert list(tmp_path.iterdir()) == []


def test_a_signal_lets_every_batch_thread_finish(
    images: Path, tmp_path: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blip2cli.model.placement.batch_size.batch_threads", lambda model: 2)
    monkeypatch.setattr(Future, "done", lambda future: False)  # as if both threads had much to do
    out = tmp_path / "out.jsonl"

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    summary = run(Job(ImageItems(), CAPTION, options(images, out, 1), load=loader), stop)
    assert summary.exit_code == 143
    # The first image's row brought the signal, when each thread had one of the next two.
    assert [row["file_name"] for row in read(out)] == ["a.png", "b.jpg", "c.webp"]
    output = replace(options(images, out, 1).output, resume=True)
    run(Job(ImageItems(), CAPTION, replace(options(images, out, 1), output=output), load=loader))
    whole = tmp_path / "whole.jsonl"
    run(Job(ImageItems(), CAPTION, options(images, whole, 1), load=loader))
    assert out.read_bytes() == whole.read_bytes()


def test_an_error_half_way_keeps_what_was_written(
    images: Path, tmp_path: Path, loader: Loader, model: Blip2
) -> None:
    class Failing(CaptionTask):
        def rows(self, model: Blip2, batch: Any) -> Any:
            if batch.items[0].file_name == "c.webp":
                raise RuntimeError("out of something")
            return super().rows(model, batch)

    out = tmp_path / "out.jsonl"
    with pytest.raises(RuntimeError, match="out of something"):
        run(Job(ImageItems(), Failing(decode=SHORT), options(images, out), load=loader))
    assert [row["file_name"] for row in read(out)] == ["a.png", "b.jpg"]


class BreakingOff(ImageItems):
    """Images whose list cannot be read further behind the first four."""

    def plan(self, job: Job[Any]) -> Plan:
        plan = super().plan(job)

        def items() -> Iterator[Any]:
            yield from islice(plan.items, 4)
            raise SourceError("sources", "The list breaks off")

        return replace(plan, items=items())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_source_that_breaks_off_has_the_rows_of_all_before(
    threads: int, images: Path, tmp_path: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blip2cli.model.placement.batch_size.batch_threads", lambda model: threads)
    monkeypatch.setattr(Future, "done", lambda future: False)  # as if both threads had much to do
    out = tmp_path / "out.jsonl"
    with pytest.raises(SourceError, match="breaks off"):
        run(Job(BreakingOff(), CAPTION, options(images, out, 1), load=loader))
    assert [row["file_name"] for row in read(out)] == ["a.png", "b.jpg", "c.webp", "d.png"]


def test_a_full_disk_stops_the_run(images: Path, loader: Loader) -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(RunError):
        run(Job(ImageItems(), CAPTION, options(images), load=loader, stdout=full))


def test_a_reader_that_went_away_is_let_through(images: Path, loader: Loader) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "wb", buffering=0) as pipe, pytest.raises(BrokenPipeError):
        run(Job(ImageItems(), CAPTION, options(images), load=loader, stdout=pipe))
