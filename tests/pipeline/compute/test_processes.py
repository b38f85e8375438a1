"""Worker processes with a device each: rows in order, whatever becomes of the workers."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from blip2cli.errors import ModelError, RunError
from blip2cli.pipeline.compute.base import NEXT_IMAGE
from blip2cli.pipeline.compute.processes import WorkerProcesses, divided_threads
from blip2cli.pipeline.events import DeviceUsed, Event, Slower, WorkerEnded
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources.base import ImageRef
from tests.pipeline.compute.stub_replica import StubSpec, rows_of_bursts, spec
from tests.processes import worker_processes


def refs(count: int, **special: str) -> list[ImageRef]:
    """Images named by their numbers; ``n3="exit 1"`` is what the third one does."""
    return [
        ImageRef(f"{number}", special.get(f"n{number}", ""), carried=("carried", number))
        for number in range(count)
    ]


class Driven:
    """What a run does with worker processes, without a run."""

    def __init__(
        self,
        images: Sequence[ImageRef],
        devices: str = "cpu,cpu",
        made: StubSpec | None = None,
        stall_timeout: float = 60,
    ) -> None:
        self.events: list[Event] = []
        self.batches: list[ProcessedBatch] = []
        self.most = 0  # batches under way
        items = iter(images)
        names = devices.split(",")
        self.compute = WorkerProcesses(
            made or spec(), names, items, self.events.append, stall_timeout
        )

    def __iter__(self) -> Iterator[ProcessedBatch]:
        with self.compute as compute:
            compute.start()
            self.ready = compute.load()
            while (batch := compute.next_batch()) is not None:
                compute.put(batch)
                self.most = max(self.most, len(compute._batches))
                while (done := compute.take(False)) is not None:
                    yield done
            while (done := compute.take(True)) is not None:
                yield done

    def run(self) -> list[str]:
        """The names of all rows."""
        self.batches = list(self)
        return [str(row["file_name"]) for batch in self.batches for row in batch.rows]

    @property
    def failed(self) -> dict[str, str]:
        """Failed images and their messages."""
        return {
            image.file_name: f"{image.error.error_type}: {image.error}"
            for batch in self.batches
            for image in batch.images
            if image.error is not None
        }

    @property
    def ended(self) -> list[tuple[str, bool]]:
        """How workers ended, and whether they were started again."""
        return [(e.reason, e.again) for e in self.events if isinstance(e, WorkerEnded)]


def names(count: int, *but: int) -> list[str]:
    return [str(number) for number in range(count) if number not in but]


def test_rows_come_in_order_from_all_workers() -> None:
    driven = Driven(refs(100, n4="sleep 0.3", n44="sleep 0.3"), "cpu,cpu,cpu")
    assert driven.run() == names(100)
    rows = [row for batch in driven.batches for row in batch.rows]
    assert len({row["process"] for row in rows}) == 3
    assert os.getpid() not in {row["process"] for row in rows}
    assert driven.ready.batch_size == 4
    assert driven.ready.device == "cpu, cpu, cpu"
    used = [event for event in driven.events if isinstance(event, DeviceUsed)]
    assert sum(each.images for each in used) == 100
    assert all(each.images and each.seconds > 0 for each in used)
    assert driven.batches[0].images[1].carried == ("carried", 1)
    assert driven.batches[0].events == (Slower("0"),)
    assert not worker_processes()


def test_a_slow_worker_holds_up_the_others_only_at_the_bound() -> None:
    driven = Driven(refs(200, n0="sleep 2"))
    began = time.monotonic()
    seconds = [time.monotonic() - began for _ in driven]
    assert driven.most == 8  # four a worker
    assert max(seconds) < 10


def test_what_a_killed_worker_had_is_done_again() -> None:
    driven = Driven(refs(60, **{f"n{n}": "sleep 0.02" for n in range(60)}))
    seen = []
    for number, batch in enumerate(driven):
        seen += [row["file_name"] for row in batch.rows]
        if number in (2, 6):
            os.kill(min(worker_processes()), signal.SIGKILL)
    assert seen == names(60)
    assert driven.ended == [("killed by SIGKILL", True)] * 2


@pytest.mark.parametrize(
    ("what", "how", "deaths"),
    [
        ("exit 3", "exit status 3", 2),
        ("signal 11", "killed by SIGSEGV", 2),
        ("signal 9", "killed by SIGKILL", 4),
    ],
)
def test_an_image_that_ends_workers_again_is_a_failed_one(what: str, how: str, deaths: int) -> None:
    driven = Driven(refs(30, n9=what))
    assert driven.run() == names(30, 9)
    message = f"worker_crashed: Running it ended the worker process more than once ({how})."
    assert driven.failed == {"9": message}
    assert driven.ended == [(how, True)] * deaths
    (image,) = (i for b in driven.batches for i in b.images if i.file_name == "9")
    assert image.carried == ("carried", 9)


def test_an_image_that_does_so_once_has_its_row(tmp_path: Path) -> None:
    driven = Driven(refs(30, n9=f"once {tmp_path / 'm'} and signal 11"))
    assert driven.run() == names(30)
    assert driven.ended == [("killed by SIGSEGV", True)]


def test_a_worker_that_hangs_is_ended(tmp_path: Path) -> None:
    driven = Driven(refs(30, n9=f"once {tmp_path / 'm'} and sleep 600"), stall_timeout=1)
    assert driven.run() == names(30)
    assert driven.ended == [("no progress for 1 s", True)]


def test_a_stopped_worker_hangs() -> None:
    driven = Driven(refs(40), stall_timeout=1)
    seen = []
    for number, batch in enumerate(driven):
        seen += [row["file_name"] for row in batch.rows]
        if not number:
            os.kill(min(worker_processes()), signal.SIGSTOP)
    assert seen == names(40)
    assert ("no progress for 1 s", True) in driven.ended


def test_the_worker_that_is_waited_for_is_named_with_its_images() -> None:
    driven = Driven(refs(8, n0="sleep 600"))
    with driven.compute as compute:
        compute.start()
        compute.load()
        batch = compute.next_batch()
        assert batch is not None
        compute.put(batch)
        what = compute.waiting_for("model")
        assert compute.waiting_for("read") == NEXT_IMAGE
    assert re.fullmatch(r"the worker on cpu \(\d\) \(process \d+\), which has 0 and 3 more", what)


def test_the_run_ends_when_no_worker_is_left() -> None:
    driven = Driven(refs(30), made=spec("exit 5"))
    with pytest.raises(RunError, match=r"ended again and again.*on cpu \(\d\) \(exit status 5\)"):
        driven.run()
    assert driven.ended.count(("exit status 5", False)) == 2
    assert not worker_processes()


def test_a_model_that_cannot_be_loaded_is_the_users_error() -> None:
    with pytest.raises(ModelError, match="There is no such device; take another"):
        Driven(refs(3), made=spec("user")).run()
    assert not worker_processes()


def test_a_device_that_cannot_be_used_does_not_end_a_run_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_LOADING_SECONDS", "_LOADING_RATIO", "_LOOK_AGAIN"):
        monkeypatch.setattr(f"blip2cli.pipeline.compute.processes.{name}", 0.1)
    made = spec(f"once {tmp_path / 'm'} and user 1")
    driven = Driven(refs(30, **{f"n{n}": "sleep 0.1" for n in range(30)}), made=made)
    assert driven.run() == names(30)
    assert driven.ended == [("ModelError: There is no such device; take another.", True)]


def test_a_mistake_of_ours_is_raised_in_its_turn() -> None:
    driven = Driven(refs(30, n9="raise"))
    done = []
    with pytest.raises(ValueError, match="a mistake") as caught:
        done.extend(batch.done for batch in driven)
    assert "stub_replica.py" in caught.value.__notes__[0]
    assert done == [4, 4]  # the batches before it
    assert not worker_processes()


def test_all_workers_have_one_precision(tmp_path: Path) -> None:
    # Whoever comes first, with two batches of four, is held up until the other one has come.
    acts = {"n0": f"await {tmp_path / 'm'}", "n8": f"touch {tmp_path / 'm'}"}
    driven = Driven(refs(40, **acts), "cpu:0,cpu:1")
    driven.run()
    rows = [row for batch in driven.batches for row in batch.rows]
    assert {row["dtype"] for row in rows} == {"float32"}
    assert len({row["process"] for row in rows}) == 2
    assert driven.ended == []


def test_threads_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert [divided_threads(n) for n in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert divided_threads(1) >= 1


def test_a_burst_of_paths_fills_all_workers_and_its_rows_wait_for_no_further_one() -> None:
    rows = rows_of_bursts(
        lambda items, stdin: WorkerProcesses(
            spec(), ["cpu"] * 2, items, lambda event: None, 60, stdin
        ),
        (8, 8, 2),  # in batches of four
        "sleep 0.1",
    )
    assert [row["file_name"] for row in rows] == names(18)
    for first in (0, 8):
        assert len({row["process"] for row in rows[first : first + 8]}) == 2
