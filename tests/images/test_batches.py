"""Pending batches: read in one thread, decoded in others."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from PIL import Image

from blip2cli.errors import SourceError
from blip2cli.images import load_image
from blip2cli.images.batch_stream import BatchPolicy, BatchStream, LoadedBatch
from blip2cli.images.decode import DecodedImage, WarningsIgnored, decode_unsilenced
from blip2cli.sources.base import ImageRef
from tests.images.helpers import SPEC, Broken, Gate, made, options, until
from tests.images.pictures import damaged_tiff, encoded, gradient, picture

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

FIRST = 2  # images that the prefetch thread decodes before it only reads
POLICY = BatchPolicy(prefetch_images=FIRST)


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that decoded, in order."""
    seen: list[str] = []

    def decode(data: bytes, at_least: tuple[int, int] | None = None) -> DecodedImage:
        seen.append(threading.current_thread().name)
        return decode_unsilenced(data, at_least)

    monkeypatch.setattr(load_image, "decode_unsilenced", decode)
    return seen


def all_pending(batches: BatchStream) -> list[Callable[[], LoadedBatch]]:
    return list(iter(batches.next_pending, None))


def filled(batches: BatchStream) -> BatchStream:
    """The stream with decoding shared, after the thread has decoded all that may wait."""
    assert batches._prefetch is not None
    waiting = batches._prefetch._ready
    assert until(lambda: len(waiting) == FIRST)
    batches.share_decoding()
    return batches


def every_kind() -> list[ImageRef]:
    refs: list[ImageRef] = [made(n) for n in range(17)]
    refs[3], refs[8] = made(3, b"no image"), Broken("b", "/b")
    refs[5] = made(5, encoded(gradient(40, 30), "TIFF", compression="tiff_lzw"))
    refs[10] = made(10, damaged_tiff())
    return refs


@pytest.mark.parametrize("size", [1, 4, 100])
def test_items_and_pixels_are_those_of_the_main_thread(size: int, decoders: list[str]) -> None:
    refs = every_kind()
    with (
        BatchStream(refs, SPEC, options(size), True, POLICY) as batches,
        ThreadPoolExecutor(3, "finishing") as pool,
    ):
        pending = [pool.submit(each) for each in all_pending(filled(batches))]
        found = [each.result() for each in pending]
    with BatchStream(refs, SPEC, options(size)) as batches:
        expected = list(batches)
    for one, other in zip(found, expected, strict=True):
        assert repr(one.items) == repr(other.items)
        assert torch.equal(one.pixels, other.pixels)
    # Neither of the broken one, nor of the two TIFF files, which are left to the main thread.
    assert [name.partition("_")[0] for name in decoders] == [
        *["prefetch"] * FIRST,
        *["finishing"] * (17 - FIRST - 3),
    ]


def test_batches_are_finished_in_any_order_and_after_the_stream_is_closed() -> None:
    refs = [made(n) for n in range(9)]
    with BatchStream(refs, SPEC, options(2), True, POLICY) as batches:
        pending = all_pending(filled(batches))
    found = [each() for each in pending[::-1]][::-1]
    names = [item.file_name for batch in found for item in batch.items]
    assert names == [ref.file_name for ref in refs]


def test_iterating_decodes_pending_batches_in_the_caller(decoders: list[str]) -> None:
    with BatchStream([made(n) for n in range(7)], SPEC, options(3), True, POLICY) as batches:
        found = list(filled(batches))
    assert [len(batch.pixels) for batch in found] == [3, 3, 1]
    assert decoders == ["prefetch"] * FIRST + ["MainThread"] * (7 - FIRST)


def test_slow_decoding_stays_in_the_prefetch_thread(decoders: list[str]) -> None:
    """A run that is interrupted waits for the batches under way."""
    policy = replace(POLICY, decode_seconds_per_batch=1e-9)
    with BatchStream([made(n) for n in range(7)], SPEC, options(3), True, policy) as batches:
        list(filled(batches))
    assert decoders == ["prefetch"] * 7


def test_it_is_not_shared_before_it_is_known_how_long_it_takes(decoders: list[str]) -> None:
    gate = Gate("g", "/g", picture(0))
    refs: list[ImageRef] = [gate, *(made(n) for n in range(1, 6))]
    with BatchStream(refs, SPEC, options(2), True, POLICY) as batches:
        assert gate.reached.wait(20)
        batches.share_decoding()
        threading.Timer(0.1, gate.opened.set).start()
        assert sum(len(each().pixels) for each in all_pending(batches)) == 6
    assert decoders[:2] == ["prefetch"] * 2
    assert decoders[-1] == "MainThread"


def test_an_error_of_the_source_comes_after_the_images_before_it() -> None:
    def refs() -> Iterator[ImageRef]:
        yield from (made(n) for n in range(5))
        raise SourceError("sources", "the list is damaged")

    with BatchStream(refs(), SPEC, options(2), True, POLICY) as batches:
        filled(batches)
        pending = [batches.next_pending() for _ in range(3)]
        with pytest.raises(SourceError, match="damaged"):
            batches.next_pending()
        assert batches.next_pending() is None
    assert [len(each().items) for each in pending if each is not None] == [2, 2, 1]


def test_sharing_does_not_change_workers_and_the_main_thread() -> None:
    for workers in (0, 1):
        with BatchStream([made(n) for n in range(5)], SPEC, options(2, workers)) as batches:
            batches.share_decoding()
            assert [len(each().pixels) for each in all_pending(batches)] == [2, 2, 1]


def test_warnings_are_ignored_until_the_last_batch_is_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here every warning is an error, so an image that is warned about would fail."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with BatchStream([made(n) for n in range(4)], SPEC, options(2), True, POLICY) as batches:
        pending = all_pending(filled(batches))
    assert [item.error for each in pending for item in each().items] == [None] * 4


def test_a_batch_that_is_dropped_leaves_no_filter() -> None:
    with BatchStream([made(n) for n in range(6)], SPEC, options(2), True, POLICY) as batches:
        pending = all_pending(filled(batches))
    assert any("PIL" in str(entry[3]) for entry in warnings.filters)
    del pending
    assert not any("PIL" in str(entry[3]) for entry in warnings.filters)


def test_the_last_one_to_end_takes_the_filter_away() -> None:
    before = list(warnings.filters)
    first, second = WarningsIgnored(), WarningsIgnored()
    first.end()
    first.end()
    assert list(warnings.filters) != before
    second.end()
    assert list(warnings.filters) == before
