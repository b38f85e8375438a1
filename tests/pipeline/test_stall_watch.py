"""What a run waits for when no rows come."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2cli.images.batches import UndecodedBatch
from blip2cli.images.load_image import EncodedImage, ImageLoader, LoadedImage, ReadImage
from blip2cli.images.preprocess import PixelSpec
from blip2cli.model.wrapper import Blip2
from blip2cli.options import RayOptions
from blip2cli.pipeline import stall_watch
from blip2cli.pipeline.compute.base import NEXT_IMAGE
from blip2cli.pipeline.compute.ray_actors import RayActors
from blip2cli.pipeline.compute.this_process import ThisProcess
from blip2cli.pipeline.events import Event, Waiting
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.pipeline.stall_watch import StallWatch
from blip2cli.sources.base import ImageRef
from blip2cli.tasks.caption import CaptionTask
from tests.pipeline.compute.stub_replica import spec
from tests.pipeline.helpers import CAPTION, Loader, options


def remarks(
    monkeypatch: pytest.MonkeyPatch,
    end: float,
    moved: Callable[[float], bool] = lambda now: False,
    stopped_at: float = -1,
) -> list[float]:
    """After how many seconds each remark comes, on a clock of our own, where rows come when
    ``moved`` says so and the process stands still for an hour at ``stopped_at``."""
    now = 0.0
    found: list[Event] = []
    times = []
    monkeypatch.setattr("time.perf_counter", lambda: now)
    watch = StallWatch()

    class Script:
        def wait(self, seconds: float) -> bool:
            nonlocal now
            now += seconds
            if now == stopped_at:
                now += 3600
            if moved(now):
                watch.moved = now
            return now > end

    def listen(event: Event) -> None:
        found.append(event)
        times.append(now)

    watch._ended = Script()  # type: ignore[assignment]
    watch._work(listen, lambda stage: "it", 60.0)
    assert all(isinstance(event, Waiting) and event.what == "it" for event in found)
    return times


def test_a_remark_comes_after_a_minute_and_when_the_wait_has_doubled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert remarks(monkeypatch, end=500) == [60, 120, 240, 480]


def test_a_run_whose_rows_come_is_left_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remarks(monkeypatch, end=1000, moved=lambda now: now % 30 == 0) == []


def test_batches_that_take_long_are_remarked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remarks(monkeypatch, end=1000, moved=lambda now: now % 90 == 0) == [60]


def test_a_process_that_was_stopped_has_not_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remarks(monkeypatch, end=3650, stopped_at=30) == []


def test_what_changes_just_then_is_no_error() -> None:
    def waiting_for(stage: str) -> str:
        raise RuntimeError("dictionary changed size during iteration")

    assert stall_watch._named(waiting_for, "model") == "what has just come"
    assert stall_watch._named(waiting_for, "write") == "rows to be written"


def test_the_block_that_an_actor_of_ray_has_is_named() -> None:
    refs = [ImageRef(name, f"/{name}") for name in ("a.png", "b.png", "c.png")]
    actors = RayActors(spec(), RayOptions(ray=True), iter(()), (), lambda event: None, 60)
    assert actors.waiting_for("model") == NEXT_IMAGE
    actors._under_way[0] = pickle.dumps([refs[:2], refs[2:]])
    assert actors.waiting_for("model") == "the actor of Ray that has a.png and 2 more"
    assert actors.waiting_for("read") == NEXT_IMAGE


def test_images_that_are_decoded_beside_the_model_are_named() -> None:
    unused: Any = None
    compute = ThisProcess(unused, unused, unused, None, False, lambda event: None)
    assert compute.waiting_for("model") == "the model"
    encoded = EncodedImage(ImageRef("a.png", "/a.png"), b"", main_thread_only=False)
    images: list[ReadImage] = [encoded, (LoadedImage("b.png", 1, 1), None)]
    compute._running[1] = UndecodedBatch(ImageLoader(PixelSpec(8, 8)), images, None)
    assert compute.waiting_for("model") == "the decoding of a.png and 1 more"


class UntilSaid:
    """A listener of a run, and what waits in it until the run says what it waits for."""

    def __init__(self) -> None:
        self.whats: set[tuple[str, str]] = set()
        self._new = threading.Condition()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Waiting):
            with self._new:
                self.whats.add((event.stage, event.what))
                self._new.notify_all()

    def wait(self, stage: str, what: str) -> None:
        with self._new:
            assert self._new.wait_for(lambda: (stage, what) in self.whats, 60), self.whats


@pytest.fixture
def until_said(monkeypatch: pytest.MonkeyPatch) -> UntilSaid:
    monkeypatch.setattr(stall_watch, "REMARK_AFTER", 0.2)
    return UntilSaid()


@pytest.fixture
def run_all(
    images: Path, tmp_path: Path, loader: Loader, until_said: UntilSaid
) -> Callable[[int], None]:
    """Run captions of five images in batches of a size; what it waits for is said to the other."""

    def run_in_batches(size: int) -> None:
        chosen = options(images, tmp_path / "out.jsonl", size)
        assert run(Job(ImageItems(), CAPTION, chosen, load=loader), until_said).done == 5

    return run_in_batches


def test_an_image_that_is_not_read_is_named(
    run_all: Callable[[int], None], until_said: UntilSaid, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, names = ImageRef.read, []

    def slowly(ref: ImageRef) -> bytes:
        names.append(ref.file_name)
        if len(names) == 3:
            until_said.wait("read", f"{ref.file_name}, which is loaded")
        return read(ref)

    monkeypatch.setattr(ImageRef, "read", slowly)
    run_all(1)
    assert ("read", f"{names[2]}, which is loaded") in until_said.whats


def test_a_batch_that_the_model_has_is_named(
    run_all: Callable[[int], None], until_said: UntilSaid, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, first = CaptionTask.rows, []

    def slowly(task: CaptionTask, model: Blip2, batch: Any) -> Any:
        first.append(batch.items[0].file_name)
        until_said.wait("model", f"the model, which has {first[0]} and 4 more")
        return rows(task, model, batch)

    monkeypatch.setattr(CaptionTask, "rows", slowly)
    run_all(5)
    assert ("model", f"the model, which has {first[0]} and 4 more") in until_said.whats
    assert not [thread for thread in threading.enumerate() if thread.name == "stall watch"]


def test_every_batch_of_rows_is_noted(
    run_all: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[str] = []

    def note(watch: StallWatch, name: str, value: object) -> None:
        noted.append(name)
        object.__setattr__(watch, name, value)

    monkeypatch.setattr(StallWatch, "__setattr__", note)
    run_all(2)
    assert noted.count("moved") == 2 + 3  # made, started, and three batches
