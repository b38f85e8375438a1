"""The prefetch thread: images are decoded before they are requested."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blip2cli.errors import SourceError
from blip2cli.images.batch_stream import BatchPolicy, BatchStream
from blip2cli.images.decode import decode
from blip2cli.images.load_image import ImageLoader
from blip2cli.images.prefetch import MEMORY_SHARE, PREFETCH_BYTES, Prefetch, byte_limit
from blip2cli.images.preprocess import PixelSpec, to_uint8
from blip2cli.options import LoaderOptions
from blip2cli.sources.base import ImageRef
from tests.images.helpers import (
    SPEC,
    Broken,
    Gate,
    made,
    options,
    prefetch_threads,
    until,
)
from tests.images.pictures import damaged_tiff, encoded, gradient, picture
from tests.processes import worker_processes

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

IMAGE_BYTES = 3 * SPEC.height * SPEC.width


def counted(taken: list[int]) -> Iterator[ImageRef]:
    """Endless images; ``taken`` grows by their numbers."""
    number = 0
    while True:
        taken.append(number)
        yield made(number % 5)
        number += 1


@pytest.mark.parametrize("size", [1, 4, 100])
def test_items_and_pixels_are_those_of_the_main_thread(size: int) -> None:
    refs: list[ImageRef] = [made(n) for n in range(11)]
    refs[2], refs[7] = made(2, b"no image"), Broken("b", "/b")
    with BatchStream(refs, SPEC, options(size), prefetch=True) as batches:
        found = list(batches)
    with BatchStream(refs, SPEC, options(size)) as batches:
        expected = list(batches)
    assert [len(batch.items) for batch in found] == [len(batch.items) for batch in expected]
    for one, other in zip(found, expected, strict=True):
        assert repr(one.items) == repr(other.items)
        assert torch.equal(one.pixels, other.pixels)


def test_it_starts_by_itself_and_stops_at_the_limit_of_images() -> None:
    policy = BatchPolicy(prefetch_images=6)
    taken: list[int] = []
    with BatchStream(counted(taken), SPEC, options(2), True, policy) as batches:
        assert until(lambda: len(taken) == 6)
        time.sleep(0.1)
        assert len(taken) == 6
        next(batches)
        assert until(lambda: len(taken) == 8)
        time.sleep(0.1)
        assert len(taken) == 8


def test_it_stops_at_the_limit_of_bytes() -> None:
    policy = BatchPolicy(prefetch_bytes=3 * IMAGE_BYTES)
    taken: list[int] = []
    with BatchStream(counted(taken), SPEC, options(2), True, policy) as batches:
        for more in (3, 5, 7):
            assert until(lambda more=more: len(taken) == more)  # type: ignore[misc]
            time.sleep(0.05)
            assert len(taken) == more
            next(batches)


def test_little_memory_lowers_the_limit() -> None:
    assert byte_limit(MEMORY_SHARE * 3 * IMAGE_BYTES) == 3 * IMAGE_BYTES
    assert byte_limit(1 << 40) == byte_limit(None) == PREFETCH_BYTES


def test_a_batch_larger_than_the_limits_is_filled() -> None:
    policy = BatchPolicy(prefetch_images=2, prefetch_bytes=1)
    with BatchStream([made(n) for n in range(9)], SPEC, options(7), True, policy) as batches:
        assert [len(batch.pixels) for batch in batches] == [7, 2]


def test_batches_are_cut_after_the_images_were_decoded() -> None:
    refs = [made(n) for n in range(9)]
    with BatchStream(refs, SPEC, options(2), prefetch=True) as batches:
        assert batches._prefetch is not None
        assert until(lambda: batches._prefetch is not None and batches._prefetch._done)
        batches.set_batch_size(5)
        names = [[item.file_name for item in batch.items] for batch in batches]
    assert [len(batch) for batch in names] == [5, 4]
    assert [name for batch in names for name in batch] == [ref.file_name for ref in refs]


def test_an_error_of_the_source_comes_after_the_images_before_it() -> None:
    def refs() -> Iterator[ImageRef]:
        for number in range(5):
            yield made(number)
        raise SourceError("sources", "The list ends in nonsense")

    batches = BatchStream(refs(), SPEC, options(2), prefetch=True)
    assert until(lambda: not prefetch_threads())  # it has met the error already
    names = [item.file_name for _ in range(3) for item in next(batches).items]
    assert names == [f"{n:03d}.png" for n in range(5)]
    with pytest.raises(SourceError, match="nonsense"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


def test_a_slow_source_is_waited_for_in_order() -> None:
    gate = Gate("gate", "/gate", data=encoded(gradient(9, 9), "PNG"))
    with BatchStream([made(0), gate, made(2)], SPEC, options(3), prefetch=True) as batches:
        assert gate.reached.wait(20)
        threading.Timer(0.2, gate.opened.set).start()
        (batch,) = batches
    assert [item.file_name for item in batch.items] == ["000.png", "gate", "002.png"]
    assert len(batch.pixels) == 3


def test_closing_does_not_wait_for_an_image_that_hangs() -> None:
    gate = Gate("gate", "/gate")
    taken: list[int] = []

    def refs() -> Iterator[ImageRef]:
        yield gate
        yield from counted(taken)

    batches = BatchStream(refs(), SPEC, options(3), prefetch=True)
    assert gate.reached.wait(20)
    began = time.monotonic()
    batches.close()
    assert time.monotonic() - began < 5
    gate.opened.set()
    assert until(lambda: not prefetch_threads())
    assert taken == []


def test_a_dropped_stream_ends_its_thread() -> None:
    taken: list[int] = []
    policy = BatchPolicy(prefetch_images=2)
    batches = BatchStream(counted(taken), SPEC, options(2), True, policy)
    assert until(lambda: len(taken) == 2)
    del batches
    assert until(lambda: not prefetch_threads())


def test_given_workers_and_a_time_limit_do_without_it() -> None:
    for chosen in (options(2, 1), LoaderOptions(2, None, 5.0)):
        with BatchStream([made(n) for n in range(3)], SPEC, chosen, prefetch=True) as batches:
            assert not prefetch_threads()
            assert len(list(batches)) == 2


def test_long_waits_start_workers_and_nothing_is_lost() -> None:
    policy = BatchPolicy(lambda: 2, 1e-9, prefetch_images=5)
    refs = [made(n % 40) for n in range(4000)]
    with BatchStream(iter(refs), SPEC, options(3, None), True, policy) as batches:
        found = [next(batches)]
        while not worker_processes():
            found.append(next(batches))
        assert len(found) < 8
        found.extend(batches)
    names = [item.file_name for batch in found for item in batch.items]
    assert names == [ref.file_name for ref in refs]
    expected = [to_uint8(decode(ref.data).image, SPEC) for ref in refs[:40]] * 100
    assert torch.equal(torch.cat([batch.pixels for batch in found]), torch.stack(expected))


def test_one_worker_is_not_started_in_its_place() -> None:
    policy = BatchPolicy(lambda: 1, 1e-9)
    before = worker_processes()
    refs = [made(n) for n in range(9)]
    with BatchStream(refs, SPEC, options(2, None), True, policy) as batches:
        assert len(list(batches)) == 5
    assert worker_processes() == before


def test_tiff_files_are_decoded_in_the_main_thread_and_its_stderr_is_untouched(
    capfd: pytest.CaptureFixture[str],
) -> None:
    good = encoded(gradient(40, 30), "TIFF", compression="tiff_lzw")
    refs = [made(0), made(1, good), made(2, damaged_tiff()), made(3)]
    stream = Prefetch(iter(refs), ImageLoader(SPEC))
    written = 0
    while prefetch_threads():
        written += os.write(2, b".")
    taken = stream.take(9)
    stream.end()
    written_to_stderr = capfd.readouterr().err
    assert written_to_stderr == "." * written  # nothing of libtiff, and nothing swallowed
    kinds = [item.error and item.error.error_type for item, _ in taken]
    assert kinds[:2] == [None, None]
    assert kinds[2] is not None
    assert kinds[3] is None
    assert np.array_equal(taken[1][1], to_uint8(decode(good).image, SPEC).numpy())


def test_warnings_of_the_thread_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here every warning is an error, so an image that is warned about would fail."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(picture(0)))
    with BatchStream([made(0), made(1)], SPEC, options(2), prefetch=True) as batches:
        (batch,) = batches
    assert [item.error for item in batch.items] == [None, None]


def test_filters_set_meanwhile_stay() -> None:
    with warnings.catch_warnings():
        stream = Prefetch(iter([made(0)]), ImageLoader(SPEC))
        warnings.filterwarnings("ignore", message="set meanwhile")
        stream.end()
        assert any("set meanwhile" in str(entry[1]) for entry in warnings.filters)
        assert not any("PIL" in str(entry[3]) for entry in warnings.filters)


def test_images_are_decoded_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from blip2cli.images.prefetch import MEMORY_SHARE, PREFETCH_BYTES, Prefetch, byte_limit\n"
        "from blip2cli.images.preprocess import PixelSpec\n"
        "from blip2cli.images.load_image import ImageLoader\n"
        "from blip2cli.options import SourceOptions\n"
        "from blip2cli.sources import open_sources\n"
        "refs = open_sources(SourceOptions((sys.argv[1],)))\n"
        "stream = Prefetch(refs, ImageLoader(PixelSpec(4, 4)))\n"
        "print([item.width for item, _ in stream.take(3)], 'torch' in sys.modules)\n"
        "stream.end()\n"
    )
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(encoded(gradient(20 + number, 10), "PNG"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[20, 21, 22] False\n"


def test_an_empty_batch_has_the_shape_of_its_pixels() -> None:
    assert ImageLoader(PixelSpec(5, 7)).empty_pixels().shape == (0, 3, 5, 7)
