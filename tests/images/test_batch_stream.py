from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, cycle
from multiprocessing import spawn
from pathlib import Path

import numpy as np
import pytest
import torch

from blip2cli.errors import ImageError, RunError, SourceError
from blip2cli.images import batch_stream, load_image
from blip2cli.images.batch_stream import BatchPolicy, BatchStream
from blip2cli.images.decode import decode
from blip2cli.images.preprocess import to_uint8
from blip2cli.sources.base import ImageRef
from tests.images.helpers import (
    SPEC,
    Broken,
    Crash,
    CrashOnce,
    Reader,
    made,
    options,
)
from tests.images.pictures import picture
from tests.processes import eventually_gone, members, worker_processes


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_order_and_pixels_do_not_depend_on_workers(workers: int) -> None:
    bad = made(2, b"no image")
    refs = [bad if n == 2 else made(n) for n in range(11)]
    with BatchStream(refs, SPEC, options(4, workers)) as batches:
        found = list(batches)
    assert [len(batch.items) for batch in found] == [4, 4, 3]
    items = [item for batch in found for item in batch.items]
    assert [item.file_name for item in items] == [ref.file_name for ref in refs]
    assert [item.width for item in items] == [None if n == 2 else 20 + n for n in range(11)]
    assert [item.height for item in items] == [None if n == 2 else 10 + n for n in range(11)]
    assert [item.error.error_type for item in items if item.error] == ["not_an_image"]
    assert [len(batch.pixels) for batch in found] == [3, 4, 3]
    expected = [to_uint8(decode(ref.data).image, SPEC) for ref in refs if ref is not bad]
    pixels = torch.cat([batch.pixels for batch in found])
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, torch.stack(expected))


def test_a_batch_of_failures_has_no_pixels() -> None:
    (batch,) = BatchStream([made(0, b""), made(1, b"x")], SPEC, options())
    assert batch.pixels.shape == (0, 3, 16, 20)
    assert [item.error.error_type for item in batch.items if item.error] == [
        "empty",
        "not_an_image",
    ]


def test_nothing_to_load() -> None:
    assert list(BatchStream([], SPEC, options())) == []


def test_any_exception_is_that_images_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    (batch,) = BatchStream([made(0), Broken("b", "/b"), made(2)], SPEC, options())
    error = batch.items[1].error
    assert isinstance(error, ImageError)
    assert error.error_type == "decode_error"
    assert "a mistake" in str(error)
    assert len(batch.pixels) == 2
    assert pickle.loads(pickle.dumps(batch.items)) is not None

    def hungry(*_: object) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(load_image, "to_planes", hungry)
    (batch,) = BatchStream([made(0)], SPEC, options())
    assert batch.items[0].error is not None
    assert batch.items[0].error.error_type == "out_of_memory"


@pytest.mark.parametrize("workers", [0, 1])
def test_listing_is_taken_as_needed(workers: int) -> None:
    taken = 0

    def endless() -> Iterator[ImageRef]:
        nonlocal taken
        while True:
            yield made(taken % 5)
            taken += 1

    with BatchStream(endless(), SPEC, options(2, workers)) as batches:
        next(batches)
        assert taken <= 2 * (1 + batch_stream.PREFETCH_FACTOR * workers) + 1


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_source_comes_after_the_images_before_it(workers: int) -> None:
    def refs() -> Iterator[ImageRef]:
        for number in range(5):
            yield made(number)
        raise SourceError("sources", "The list ends in nonsense")

    batches = BatchStream(refs(), SPEC, options(2, workers))
    names = [item.file_name for _ in range(3) for item in next(batches).items]
    assert names == [f"{n:03d}.png" for n in range(5)]
    with pytest.raises(SourceError, match="nonsense"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


def test_the_users_random_numbers_are_untouched() -> None:
    before = torch.get_rng_state()
    assert len(list(BatchStream([made(n) for n in range(3)], SPEC, options(2, 1)))) == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_an_abandoned_loader_leaves_no_worker() -> None:
    batches = BatchStream((made(n % 9) for n in range(10_000)), SPEC, options(2, 2))
    next(batches)
    workers = worker_processes()
    assert len(workers) == 2
    batches.close()
    assert eventually_gone(workers)
    with pytest.raises(StopIteration):
        next(batches)

    batches = BatchStream((made(n % 9) for n in range(10_000)), SPEC, options(2, 1))
    next(batches)
    workers = worker_processes()
    assert len(workers) == 1
    del batches
    assert eventually_gone(workers)


def test_an_image_that_kills_its_worker_fails_by_itself() -> None:
    refs: list[ImageRef] = [made(n) for n in range(9)]
    refs[4] = Crash("bomb.png", "/bomb.png")
    with BatchStream(refs, SPEC, options(3, 2)) as batches:
        items = [item for batch in batches for item in batch.items]
    assert [item.file_name for item in items] == [ref.file_name for ref in refs]
    assert [(item.file_name, item.error.error_type) for item in items if item.error] == [
        ("bomb.png", "decoder_crashed")
    ]


def test_a_worker_killed_from_outside_costs_nothing(tmp_path: Path) -> None:
    refs = [made(n) for n in range(12)]
    refs[5] = CrashOnce("005.png", str(tmp_path / "mark"), picture(5))
    with BatchStream(refs, SPEC, options(2, 2)) as batches:
        items = [item for batch in batches for item in batch.items]
    assert [(item.file_name, item.error) for item in items] == [(r.file_name, None) for r in refs]


def test_small_jobs_start_no_process() -> None:
    policy = BatchPolicy(workers=lambda: 2)
    before = worker_processes()
    refs = [made(n) for n in range(6)]
    assert len(list(BatchStream(refs, SPEC, options(2, None), policy=policy))) == 3
    assert worker_processes() == before


def test_long_jobs_move_to_workers_on_the_way() -> None:
    # The first batch takes longer than that.
    policy = BatchPolicy(lambda: 2, seconds_without_workers=1e-9)
    refs = [Reader(f"{n}", "") for n in range(10_000)]
    with BatchStream(refs, SPEC, options(2, None), policy=policy) as batches:
        found = [next(batches)]
        assert not worker_processes()
        found.append(next(batches))
        assert len(worker_processes()) == 2
        while str(os.getpid()) in str(found[-1].items[0].error):  # until they have started
            found.append(next(batches))
        found.append(next(batches))
    names = [item.file_name for batch in found for item in batch.items]
    assert names == [ref.file_name for ref in refs[: len(names)]]
    readers = {str(item.error) for item in found[-1].items} | {str(found[-2].items[0].error)}
    assert len(readers) == 2


def test_workers_that_do_not_start_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "get_executable", lambda: "/bin/false")
    with BatchStream([made(0)], SPEC, options(1, 1)) as batches, pytest.raises(RunError, match="0"):
        next(batches)
    monkeypatch.setattr(spawn, "get_executable", lambda: "/nowhere/python")
    with pytest.raises(RunError, match="cannot be started"):
        BatchStream([made(0)], SPEC, options(1, 1))


def test_without_workers_that_start_this_process_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    good = spawn.get_executable()
    commands = cycle([good, "/bin/false"])
    monkeypatch.setattr(spawn, "get_executable", lambda: next(commands))
    before = worker_processes()
    policy = BatchPolicy(lambda: 2, seconds_without_workers=0)
    with BatchStream(map(made, count()), SPEC, options(2, None), policy=policy) as batches:
        next(batches)
        while worker_processes() != before:
            assert [item.error for item in next(batches).items] == [None, None]
        assert next(commands) == good  # no more were started


def test_a_stopped_worker_is_woken() -> None:
    with BatchStream((made(n % 9) for n in range(40)), SPEC, options(2, 1)) as batches:
        next(batches)
        (worker,) = worker_processes()
        os.kill(worker, signal.SIGSTOP)
        assert len(list(batches)) == 19


def test_a_worker_that_is_stopped_while_it_is_sent_to_is_woken() -> None:
    large = "x" * (4 << 20)  # more than a socket holds
    refs = (replace(made(n % 9), carried=(large,)) for n in range(8))
    with BatchStream(refs, SPEC, options(1, 1)) as batches:
        (worker,) = worker_processes()
        os.kill(worker, signal.SIGSTOP)
        assert [item.carried == (large,) for batch in batches for item in batch.items] == [True] * 8


# A script without a __main__ guard, as people write them.
SCRIPT = """
import os, sys, time
from blip2cli.images.batch_stream import BatchStream
from blip2cli.images.preprocess import PixelSpec
from blip2cli.options import LoaderOptions, SourceOptions
from blip2cli.sources import open_sources

print("started", flush=True)
refs = open_sources(SourceOptions((sys.argv[1],)))
batches = BatchStream((ref for ref in [*refs] * 1000), PixelSpec(8, 8), LoaderOptions(2, 2))
next(batches)
print("loaded", flush=True)
for _ in range(6000 * (len(sys.argv) > 2)):
    time.sleep(0.1)  # a signal just before a long sleep would wait for its end
batches.close()
"""


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    (tmp_path / "images").mkdir()
    for number in range(4):
        (tmp_path / "images" / f"{number}.png").write_bytes(picture(number))
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-W", "error"]
    return [*command, str(tmp_path / "script.py"), str(tmp_path / "images")]


def test_a_plain_script_needs_no_guard_and_gets_no_warning(script: list[str]) -> None:
    done = subprocess.run(script, capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["started", "loaded"]  # once, not once per worker


def test_workers_end_with_a_killed_main_process(script: list[str]) -> None:
    with subprocess.Popen(
        [*script, "wait"], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["started\n", "loaded\n"]
        everyone = members(process.pid)
        assert len(everyone) == 3  # itself, two workers
        process.kill()
        process.wait()
        assert eventually_gone(everyone - {process.pid})


def test_an_interrupt_from_the_keyboard_reaches_the_main_process_only(script: list[str]) -> None:
    with subprocess.Popen(
        [*script, "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline() for _ in range(2)] == ["started\n", "loaded\n"]
        everyone = members(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
        errors = process.stderr.read()
        assert errors.count("Traceback") == 1  # of the script itself, none of a worker
        assert errors.rstrip().endswith("KeyboardInterrupt")
        process.wait()
        assert eventually_gone(everyone - {process.pid})


def test_the_stream_is_an_iterator() -> None:
    stream = BatchStream([made(0)], SPEC, options())
    assert isinstance(stream, BatchStream)
    assert iter(stream) is stream
