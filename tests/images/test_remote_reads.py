"""Images on other machines are read before they are requested, many at once."""

from __future__ import annotations

import pickle
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

from blip2cli.errors import SourceError
from blip2cli.images.batch_stream import BatchPolicy, BatchStream
from blip2cli.images.remote_reads import READS, ReadThreads, RemoteRefs
from blip2cli.options import LoaderOptions
from blip2cli.sources.base import ImageRef
from tests.images.helpers import SPEC, Broken, Made, made, options, until


@dataclass(frozen=True)
class Far(Made):
    """An image whose server takes its time."""

    remote: ClassVar[bool] = True

    def read(self) -> bytes:
        time.sleep(random.uniform(0.001, 0.02))
        return self.data


@dataclass
class Server:
    """Counts the requests that are under way at once."""

    now: int = 0
    most: int = 0
    answers: threading.Event = field(default_factory=threading.Event)


_server = Server()


@dataclass(frozen=True)
class Counted(ImageRef):
    """An image of that server."""

    remote: ClassVar[bool] = True
    size: int = 10

    def read(self) -> bytes:
        _server.now += 1
        _server.most = max(_server.most, _server.now)
        _server.answers.wait(10)
        _server.now -= 1
        return bytes(self.size)


def far(number: int) -> ImageRef:
    near = made(number)
    return Far(near.file_name, near.path, near.data, carried=(number,), occurrence=number)


def reading_threads() -> int:
    return sum(thread.name in ("read", "remote refs") for thread in threading.enumerate())


@pytest.mark.parametrize(("workers", "prefetch"), [(0, True), (0, False), (2, True)])
def test_order_and_rows_are_those_of_local_images(workers: int, prefetch: bool) -> None:
    refs: list[ImageRef] = [far(n) if n % 7 else made(n) for n in range(90)]
    refs[5] = Broken("5", "/5")
    stream = BatchStream(refs, SPEC, options(4, workers), prefetch=prefetch)
    with stream as batches:
        found = list(batches)
    with BatchStream([refs[5] if n == 5 else made(n) for n in range(90)], SPEC, options(4)) as near:
        expected = list(near)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours.pixels.numpy(), theirs.pixels.numpy())
        assert [i.file_name for i in ours.items] == [i.file_name for i in theirs.items]
    items = [item for batch in found for item in batch.items]
    assert all(item.carried == (n,) for n, item in enumerate(items) if n % 7 and n != 5)
    assert until(lambda: not reading_threads())


def test_workers_go_on_where_the_thread_stopped() -> None:
    refs = [far(n) for n in range(200)]
    policy = BatchPolicy(workers=lambda: 2, seconds_without_workers=0.0)
    with BatchStream(iter(refs), SPEC, LoaderOptions(4), prefetch=True, policy=policy) as batches:
        names = []
        for batch in batches:
            names += [item.file_name for item in batch.items]
            assert all(item.error is None for item in batch.items)
            time.sleep(0.01)
    assert names == [ref.file_name for ref in refs]
    assert until(lambda: not reading_threads())


def test_many_requests_are_under_way_and_few_bytes_wait() -> None:
    _server.answers.clear()
    threads = ReadThreads(max_bytes=100)
    pending = [threads.start(Counted(str(n), "/x")) for n in range(50)]
    assert until(lambda: _server.most == 10)  # more are over the limit of bytes
    _server.answers.set()
    assert [len(ref.read()) for ref in pending] == [10] * 50
    assert _server.most == 10
    threads.close()
    _server.answers.clear()
    threads = ReadThreads()
    pending = [threads.start(Counted(str(n), "/x")) for n in range(READS + 20)]
    assert until(lambda: _server.most == READS)
    _server.answers.set()
    assert all(ref.read() for ref in pending)
    threads.close()
    assert until(lambda: not reading_threads())


def test_an_image_does_not_wait_for_the_listing_of_the_next() -> None:
    listed = threading.Event()

    def refs() -> Iterator[ImageRef]:
        yield far(0)
        assert listed.wait(10)
        yield far(1)
        raise SourceError(None, "the listing broke off")

    with BatchStream(refs(), SPEC, options(1), prefetch=True) as batches:
        assert next(batches).items[0].file_name == "000.png"
        listed.set()
        assert next(batches).items[0].file_name == "001.png"
        with pytest.raises(SourceError, match="broke off"):
            next(batches)
    assert until(lambda: not reading_threads())


def test_what_was_not_given_is_left_in_order() -> None:
    def refs() -> Iterator[ImageRef]:
        yield from map(far, range(1, 10))
        raise ZeroDivisionError

    remote = RemoteRefs(far(0), refs())
    assert [next(remote).file_name for _ in range(3)] == [far(n).file_name for n in range(3)]
    rest = remote.rest()
    assert [next(rest) for _ in range(7)] == [far(n) for n in range(3, 10)]
    with pytest.raises(ZeroDivisionError):
        next(rest)


def test_what_no_thread_reads_any_more_is_read_where_it_is_taken() -> None:
    _server.answers.clear()
    threads = ReadThreads(most=1)
    under_way, waiting = (threads.start(Counted(str(n), "/x")) for n in range(2))
    threads.close()
    _server.answers.set()
    assert (len(under_way.read()), len(waiting.read())) == (10, 10)
    assert threads.start(far(1)) == far(1)


def test_another_process_gets_the_reference_itself() -> None:
    threads = ReadThreads()
    pending = threads.start(far(1))
    assert pending != far(1)
    assert pickle.loads(pickle.dumps(pending)) == far(1)
    assert pending.read() == made(1).data
    threads.close()
