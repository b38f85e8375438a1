"""Several batches at once: rows and events as of one after the other."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from blip2cli.images.batch_stream import BatchStream
from blip2cli.pipeline.events import Event, Failed, Progress
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.processed_batch import ProcessedBatch, process_batch
from blip2cli.pipeline.run import run
from tests.pipeline.helpers import CAPTION, Loader, options


def test_rows_and_events_are_the_same_in_any_number_of_batch_threads(
    mixed: Path, tmp_path: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for count in (1, 2, 3):
        monkeypatch.setattr(
            "blip2cli.model.placement.batch_size.batch_threads", lambda model, count=count: count
        )
        events: list[Event] = []
        out = tmp_path / f"{count}.jsonl"
        summary = run(
            Job(ImageItems(), CAPTION, options(mixed, out, 1), load=loader), events.append
        )
        assert (summary.done, summary.failed, summary.exit_code) == (5, 1, 3)
        failures = Path(f"{out}.errors").read_bytes()
        shown = [str(event) for event in events if isinstance(event, Progress | Failed)]
        seen.append((out.read_bytes(), failures, shown))
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize(("threads", "shared"), [(1, 0), (2, 1), (4, 1), (5, 0)])
def test_a_few_batch_threads_decode_their_own_images(
    threads: int,
    shared: int,
    images: Path,
    tmp_path: Path,
    loader: Loader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sharing: list[BatchStream] = []
    monkeypatch.setattr("blip2cli.model.placement.batch_size.batch_threads", lambda model: threads)
    monkeypatch.setattr(BatchStream, "share_decoding", lambda stream: sharing.append(stream))
    job = Job(ImageItems(), CAPTION, options(images, tmp_path / "out.jsonl", 1), load=loader)
    assert run(job).done == 5
    assert len(sharing) == shared


def test_rows_that_are_ready_are_written_before_another_batch_is_read(
    images: Path, tmp_path: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blip2cli.model.placement.batch_size.batch_threads", lambda model: 2)
    labelled, begin = threading.Semaphore(0), BatchStream.next_pending
    done, done_at_request = 0, []

    def count(*arguments: Any) -> ProcessedBatch:
        rows = process_batch(*arguments)
        labelled.release()
        return rows

    def slowly(stream: BatchStream) -> Any:
        if len(done_at_request) == 2:  # no third image until both threads are idle
            assert labelled.acquire(timeout=60)
            assert labelled.acquire(timeout=60)
            time.sleep(0.2)  # what a thread made is there a little after ``process_batch`` returned
        done_at_request.append(done)
        return begin(stream)

    def see(event: Event) -> None:
        nonlocal done
        if isinstance(event, Progress):
            done = event.done

    monkeypatch.setattr("blip2cli.pipeline.compute.this_process.process_batch", count)
    monkeypatch.setattr(BatchStream, "next_pending", slowly)
    run(Job(ImageItems(), CAPTION, options(images, tmp_path / "out.jsonl", 1), load=loader), see)
    # With the third image put both rows went out, though one more batch might have waited.
    assert done_at_request[3] >= 2
