"""Batches that a thread gets and sends while the batch before them is computed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import pytest
import torch

from blip2cli.errors import SourceError
from blip2cli.images import hand_over
from blip2cli.images.batch_stream import BatchPolicy, BatchStream, LoadedBatch
from blip2cli.sources.base import ImageRef
from tests.images.helpers import (
    SPEC,
    Broken,
    Crash,
    CrashOnce,
    Gate,
    Hangs,
    Reader,
    made,
    options,
    until,
)
from tests.images.pictures import damaged_tiff, encoded, gradient, picture
from tests.processes import eventually_gone, worker_processes

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture(autouse=True)
def _no_hand_over_is_left() -> Iterator[None]:
    yield
    assert until(lambda: not threads())


@pytest.fixture(autouse=True)
def _small_parcels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blip2cli.images.batch_stream.PARCEL", 4)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hand over"]


@dataclass
class Sender:
    """Notes what is sent, and by which thread."""

    sent: list[list[str]] = field(default_factory=list)
    by: list[str] = field(default_factory=list)

    def __call__(self, batch: LoadedBatch) -> Callable[[], LoadedBatch]:
        self.sent.append([item.file_name for item in batch.items])
        self.by.append(threading.current_thread().name)
        return lambda: batch


def handed_over(
    refs: Iterator[ImageRef] | list[ImageRef],
    size: int,
    workers: int | None,
    prefetch: bool = False,
    policy: BatchPolicy | None = None,
) -> tuple[BatchStream, Sender]:
    stream, sender = BatchStream(refs, SPEC, options(size, workers), prefetch, policy), Sender()
    stream.hand_over(sender)
    return stream, sender


def every_kind() -> list[ImageRef]:
    refs: list[ImageRef] = [made(n) for n in range(23)]
    refs[3], refs[8] = made(3, b"no image"), Broken("b", "/b")
    refs[5] = made(5, encoded(gradient(40, 30), "TIFF", compression="tiff_lzw"))
    refs[10] = made(10, damaged_tiff())
    return refs


def endless() -> Iterator[ImageRef]:
    number = 0
    while True:
        yield made(number % 5)
        number += 1


@pytest.mark.parametrize(
    ("size", "workers", "prefetch"), [(3, 0, False), (3, 0, True), (10, 0, True), (10, 2, False)]
)
def test_batches_are_those_of_the_main_thread(size: int, workers: int, prefetch: bool) -> None:
    stream, sender = handed_over(every_kind(), size, workers, prefetch)
    with stream:
        found = list(stream)
    with BatchStream(every_kind(), SPEC, options(size)) as batches:
        expected = list(batches)
    for one, other in zip(found, expected, strict=True):
        assert repr(one.items) == repr(other.items)
        assert torch.equal(one.pixels, other.pixels)
    # Where the main thread decodes, nothing is sent; a TIFF file keeps its batch with it.
    names = [[item.file_name for item in batch.items] for batch in expected]
    if workers:
        assert sender.sent == names
    elif prefetch:
        assert sender.sent == [each for each in names if not {"005.png", "010.png"} & set(each)]
    else:
        assert sender.sent == []
    assert set(sender.by) <= {"hand over"}


@pytest.mark.parametrize(("workers", "prefetch"), [(0, True), (2, False)])
def test_one_batch_is_sent_before_it_is_asked_for(workers: int, prefetch: bool) -> None:
    taken = 0

    def refs() -> Iterator[ImageRef]:
        nonlocal taken
        for ref in endless():
            taken += 1
            yield ref

    stream, sender = handed_over(refs(), 6, workers, prefetch)
    with stream:
        for count in range(1, 4):
            assert until(lambda count=count: len(sender.sent) == count)  # type: ignore[misc]
            time.sleep(0.05)
            assert len(sender.sent) == count
            # Another one at most, and two parcels of four for each worker.
            assert prefetch or taken <= 6 * (count + 1) + 2 * 4 * workers
            assert stream.next_pending() is not None


def test_several_workers_load_the_first_batch() -> None:
    stream, _ = handed_over([Reader(f"{n}", "") for n in range(16)], 16, 2)
    with stream:
        (batch,) = stream
    readers = [str(item.error) for item in batch.items]
    assert len(set(readers)) == 2
    # One parcel after the other, of four images each.
    assert [len(set(readers[n : n + 4])) for n in range(0, 16, 4)] == [1] * 4


def test_the_main_thread_decodes_until_workers_are_there() -> None:
    policy = BatchPolicy(lambda: 2, seconds_without_workers=1e-9)
    refs: list[ImageRef] = [Reader(f"{n}", "") for n in range(4000)]
    stream, sender = handed_over(refs, 6, None, policy=policy)
    with stream:
        found = [next(stream)]
        assert sender.sent == []
        while not sender.sent:
            found.append(next(stream))
        found += [next(stream) for _ in range(3)]
    items = [item for batch in found for item in batch.items]
    assert [item.file_name for item in items] == [ref.file_name for ref in refs[: len(items)]]
    assert [len(batch.items) for batch in found] == [6] * len(found)
    readers = {str(item.error) for item in items}
    assert len(readers) == 3
    assert str(os.getpid()) in str(readers)


def test_workers_take_over_from_the_prefetch_thread_and_nothing_is_lost() -> None:
    policy = BatchPolicy(lambda: 2, 1e-9, prefetch_images=5)
    refs: list[ImageRef] = [made(n % 40) for n in range(800)]
    stream, sender = handed_over(refs, 6, None, True, policy)
    with stream:
        found = [next(stream)]
        while not worker_processes():
            found.append(next(stream))
        found += list(stream)
    names = [item.file_name for batch in found for item in batch.items]
    assert names == [ref.file_name for ref in refs]
    assert [name for each in sender.sent for name in each] == names


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_source_comes_after_the_images_before_it(workers: int) -> None:
    def refs() -> Iterator[ImageRef]:
        yield from (made(number) for number in range(5))
        raise SourceError("sources", "The list ends in nonsense")

    stream, _ = handed_over(refs(), 3, workers, prefetch=True)
    with stream:
        names = [item.file_name for _ in range(2) for item in next(stream).items]
        assert names == [f"{n:03d}.png" for n in range(5)]
        with pytest.raises(SourceError, match="nonsense"):
            next(stream)
        assert stream.next_pending() is None


@pytest.mark.parametrize("crashes", ["once", pytest.param("always", marks=pytest.mark.external)])
def test_an_image_that_kills_its_worker_costs_no_other(tmp_path: Path, crashes: str) -> None:
    refs: list[ImageRef] = [made(n) for n in range(12)]
    refs[5] = CrashOnce("5.png", str(tmp_path / "mark"), picture(5))
    if crashes == "always":
        refs[5] = Crash("5.png", "/bomb.png")
    stream, _ = handed_over(refs, 6, 1)
    with stream:
        found = list(stream)
    assert [len(batch.items) for batch in found] == [6, 6]
    items = [item for batch in found for item in batch.items]
    assert [item.file_name for item in items] == [ref.file_name for ref in refs]
    failed = [(item.file_name, item.error.error_type) for item in items if item.error]
    assert failed == ([("5.png", "decoder_crashed")] if crashes == "always" else [])


def test_what_send_raises_is_raised_in_its_turn() -> None:
    def send(batch: LoadedBatch) -> Callable[[], LoadedBatch]:
        if batch.items[0].file_name == "004.png":
            raise RuntimeError("the device is gone")
        return lambda: batch

    with BatchStream([made(n) for n in range(8)], SPEC, options(4, 1)) as stream:
        stream.hand_over(send)
        assert len(next(stream).items) == 4
        with pytest.raises(RuntimeError, match="gone"):
            next(stream)


def test_without_a_further_thread_the_main_thread_gets_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "hand over":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    stream, sender = handed_over(every_kind(), 10, 0, prefetch=True)
    with stream:
        found = list(stream)
    with BatchStream(every_kind(), SPEC, options(10)) as batches:
        expected = list(batches)
    assert [repr(batch.items) for batch in found] == [repr(batch.items) for batch in expected]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(found, expected, strict=True))
    assert sender.sent == []


@pytest.mark.parametrize(("workers", "prefetch"), [(0, True), (2, False)])
def test_closing_ends_the_thread_and_the_workers(workers: int, prefetch: bool) -> None:
    stream, sender = handed_over(endless(), 6, workers, prefetch)
    next(stream)
    assert until(lambda: len(sender.sent) == 2)
    running = worker_processes()
    assert len(running) == workers
    stream.close()
    assert not threads()
    assert eventually_gone(running)
    assert stream.next_pending() is None


@pytest.mark.parametrize("workers", [0, 1])
def test_closing_does_not_wait_for_an_image_that_hangs(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_over, "_SECONDS_TO_END", 60)
    gate = Gate("gate", "/gate") if not workers else Hangs("gate", "/gate")
    stream, _ = handed_over([made(0), gate], 2, workers, prefetch=True)
    assert until(lambda: len(threads()) == 1)
    if isinstance(gate, Gate):
        assert gate.reached.wait(20)
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 20
    if isinstance(gate, Gate):
        gate.opened.set()


class Interrupt(BaseException):
    """Raised by a signal."""


def test_an_interrupt_of_who_waits_loses_nothing() -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, handle)
    gate = Gate("gate", "/gate", picture(1))
    stream, _ = handed_over([made(0), gate, made(2)], 3, 0, prefetch=True)
    try:
        with stream:
            assert gate.reached.wait(20)
            timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            with pytest.raises(Interrupt):
                stream.next_pending()
            gate.opened.set()
            (batch,) = stream
            assert [item.file_name for item in batch.items] == ["000.png", "gate", "002.png"]
            timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
