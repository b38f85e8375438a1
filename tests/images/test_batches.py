"""Batches that are begun in one thread and finished in others."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image

from blip2cli.errors import SourceError
from blip2cli.images import load_image as reading
from blip2cli.images import loader
from blip2cli.images import prefetch as ahead
from blip2cli.images.decode import DecodedImage, WarningsIgnored, decode_unheard
from blip2cli.images.loader import BatchStream, LoadedBatch, load_batches
from blip2cli.sources.base import ImageRef
from tests.images.pictures import encoded, gradient
from tests.images.test_loader import SPEC, Broken, made, options, picture
from tests.images.test_prefetch import Gate, no_thread_is_left, until
from tests.system.test_silence_stderr import damaged_tiff

__all__ = ["no_thread_is_left"]  # is used by every test

FIRST = 2  # images that the thread decodes before it is told to only read


@pytest.fixture(autouse=True)
def short_of_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MOST_IMAGES", FIRST)


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that decoded, in order."""
    seen: list[str] = []

    def decode(data: bytes, at_least: tuple[int, int] | None = None) -> DecodedImage:
        seen.append(threading.current_thread().name)
        return decode_unheard(data, at_least)

    monkeypatch.setattr(reading, "decode_unheard", decode)
    return seen


def all_begun(batches: BatchStream) -> list[Callable[[], LoadedBatch]]:
    return list(iter(batches.begin, None))


def filled(batches: BatchStream) -> BatchStream:
    """With decoding shared once the thread has decoded all that it has room for."""
    assert batches._ahead is not None
    waiting = batches._ahead._ready
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
        load_batches(refs, SPEC, options(size), ahead=True) as batches,
        ThreadPoolExecutor(3, "finishing") as pool,
    ):
        begun = [pool.submit(each) for each in all_begun(filled(batches))]
        found = [each.result() for each in begun]
    with load_batches(refs, SPEC, options(size)) as batches:
        expected = list(batches)
    for one, other in zip(found, expected, strict=True):
        assert repr(one.items) == repr(other.items)
        assert torch.equal(one.pixels, other.pixels)
    # Neither of the broken one, nor of the two TIFF files, which are left to the main thread.
    assert [name.partition("_")[0] for name in decoders] == [
        *["decoding ahead"] * FIRST,
        *["finishing"] * (17 - FIRST - 3),
    ]


def test_batches_are_finished_in_any_order_and_after_the_stream_is_closed() -> None:
    refs = [made(n) for n in range(9)]
    with load_batches(refs, SPEC, options(2), ahead=True) as batches:
        begun = all_begun(filled(batches))
    found = [each() for each in begun[::-1]][::-1]
    names = [item.file_name for batch in found for item in batch.items]
    assert names == [ref.file_name for ref in refs]


def test_who_asks_for_loaded_batches_decodes_them(decoders: list[str]) -> None:
    with load_batches([made(n) for n in range(7)], SPEC, options(3), ahead=True) as batches:
        found = list(filled(batches))
    assert [len(batch.pixels) for batch in found] == [3, 3, 1]
    assert decoders == ["decoding ahead"] * FIRST + ["MainThread"] * (7 - FIRST)


def test_what_takes_long_stays_with_the_thread(
    decoders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is interrupted waits for the batches under way."""
    monkeypatch.setattr(loader, "BATCH_SECONDS", 1e-9)
    with load_batches([made(n) for n in range(7)], SPEC, options(3), ahead=True) as batches:
        list(filled(batches))
    assert decoders == ["decoding ahead"] * 7


def test_it_is_not_shared_before_it_is_known_how_long_it_takes(decoders: list[str]) -> None:
    gate = Gate("g", "/g", picture(0))
    refs: list[ImageRef] = [gate, *(made(n) for n in range(1, 6))]
    with load_batches(refs, SPEC, options(2), ahead=True) as batches:
        assert gate.reached.wait(20)
        batches.share_decoding()
        threading.Timer(0.1, gate.opened.set).start()
        assert sum(len(each().pixels) for each in all_begun(batches)) == 6
    assert decoders[:2] == ["decoding ahead"] * 2
    assert decoders[-1] == "MainThread"


def test_an_error_of_the_source_comes_after_the_images_before_it() -> None:
    def refs() -> Iterator[ImageRef]:
        yield from (made(n) for n in range(5))
        raise SourceError("the list is damaged")

    with load_batches(refs(), SPEC, options(2), ahead=True) as batches:
        filled(batches)
        begun = [batches.begin() for _ in range(3)]
        with pytest.raises(SourceError, match="damaged"):
            batches.begin()
        assert batches.begin() is None
    assert [len(each().items) for each in begun if each is not None] == [2, 2, 1]


def test_workers_and_the_main_thread_decode_as_ever() -> None:
    for workers in (0, 1):
        with load_batches([made(n) for n in range(5)], SPEC, options(2, workers)) as batches:
            batches.share_decoding()
            assert [len(each().pixels) for each in all_begun(batches)] == [2, 2, 1]


def test_warnings_are_ignored_until_the_last_batch_is_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here every warning is an error, so an image that is warned about would fail."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with load_batches([made(n) for n in range(4)], SPEC, options(2), ahead=True) as batches:
        begun = all_begun(filled(batches))
    assert [item.error for each in begun for item in each().items] == [None] * 4


def test_a_batch_that_is_dropped_leaves_no_filter() -> None:
    with load_batches([made(n) for n in range(6)], SPEC, options(2), ahead=True) as batches:
        begun = all_begun(filled(batches))
    assert any("PIL" in str(entry[3]) for entry in warnings.filters)
    del begun
    assert not any("PIL" in str(entry[3]) for entry in warnings.filters)


def test_the_last_one_to_end_takes_the_filter_away() -> None:
    before = list(warnings.filters)
    first, second = WarningsIgnored(), WarningsIgnored()
    first.end()
    first.end()
    assert list(warnings.filters) != before
    second.end()
    assert list(warnings.filters) == before
