"""Merging of the outputs of shares: the rows of all in the order of the source.

A k-way merge in bounded memory. A row's key is its place in the source where rows hold it (column
``ordinal``), else its name, as folders are walked. The rows of one image have one key, stand in one
share, and stay together in their order.

Rows of a share come in that order unless a later run added some, such as images that were tried
again. Such a share is read once more, into sorted runs in temporary files, which are merged as
shares are.
"""

from __future__ import annotations

import resource
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from blip2cli.convert.base import Reader
from blip2cli.convert.column_types import conform
from blip2cli.convert.concat import ConcatenatedReader
from blip2cli.convert.shares import Shares
from blip2cli.errors import SourceError
from blip2cli.sinks.settings import Settings
from blip2cli.sources.shard import name_order
from blip2cli.storage.hash_set import ORDINAL
from blip2cli.storage.text_encoding import from_utf8

_RUN_BYTES = 64 << 20  # of a run that is sorted in memory
_RUN_BATCH = 256 << 10  # bytes of a run that are in memory at once when runs are merged
_MOST_FILES = 1 << 16  # of runs
Keys = list[Any]  # of rows: places in the source, or names as bytes
KeysOf = Callable[[pa.RecordBatch], Keys]


class OutOfOrder(Exception):  # noqa: N818 - not an error: the merge starts again and sorts the share
    """The rows of the share at ``path`` are not in the order of the source."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class MergedReader:
    """The rows of all shares of an output, in the order of its source."""

    def __init__(
        self,
        readers: Sequence[Reader],
        shares: Shares,
        unordered: set[str],
        scratch: str,
        to_folder: bool,
    ) -> None:
        """``unordered``: shares whose rows have to be sorted, in temporary files in the folder
        ``scratch``. ``to_folder``: they become a folder of parts. Raises SourceError for types that
        clash."""
        self._readers = readers
        self._unordered, self._scratch = unordered, scratch
        self._schema = ConcatenatedReader(readers).schema  # with the column that is left out
        self._places = shares.has_ordinals
        self.path = readers[0].path
        self.size = sum(reader.size for reader in readers)
        self.merged = shares.settings(to_folder)
        self.settings: Settings | None = self.merged
        names = [n for n in self._schema.names if not (self._places and n == ORDINAL)]
        self.schema = pa.schema([self._schema.field(name) for name in names])
        for reader in readers:
            # Batches of all are in memory at once.
            reader.shared_by = len(readers)  # type: ignore[attr-defined]

    @property
    def notes(self) -> list[str]:
        """Those of all readers, each once."""
        return list(dict.fromkeys(note for reader in self._readers for note in reader.notes))

    def position(self) -> int:
        return sum(reader.position() for reader in self._readers)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows in order. Raises OutOfOrder for a share that has to be sorted."""
        keys_of = _places if self._places else _names
        # Each run has a file of its own.
        allow_open_files(_MOST_FILES if self._unordered else 2 * len(self._readers))
        streams = []
        for reader in self._readers:
            batches = (conform(batch, self._schema) for batch in reader.batches())
            if reader.path in self._unordered:
                runs = _sorted_runs(batches, keys_of, self._scratch)
                streams += [_Stream(reader.path, run, keys_of) for run in runs]
            else:
                streams.append(_Stream(reader.path, batches, keys_of))
        for table in _merged(streams):
            yield from table.select(self.schema.names).to_batches()


class _Stream:
    """Rows in the order of their keys, of which the first wait in memory."""

    def __init__(self, path: str, batches: Iterator[pa.RecordBatch], keys_of: KeysOf) -> None:
        self.keys: Keys = []  # of the rows that wait
        self.ended = False
        self._last: Any = None  # the key of the row that came last
        self._path, self._batches, self._keys_of = path, batches, keys_of
        self._rows: list[pa.RecordBatch] = []
        self._latest = 0  # rows in the batch that came last

    def refill(self) -> None:
        """Take more rows, unless many wait."""
        while not self.ended and len(self.keys) <= self._latest // 2:
            self.extend()

    def extend(self) -> None:
        """Take one more batch. Raises OutOfOrder."""
        batch = next(self._batches, None)
        if batch is None:
            self.ended = True
            return
        keys = self._keys_of(batch)
        if keys:
            if keys != sorted(keys) or (self._last is not None and keys[0] < self._last):
                raise OutOfOrder(self._path)
            self._last = keys[-1]
        self.keys += keys
        self._rows.append(batch)
        self._latest = batch.num_rows

    def take(self, count: int) -> tuple[Keys, list[pa.RecordBatch]]:
        """The first ``count`` rows, which wait no longer."""
        keys, self.keys = self.keys[:count], self.keys[count:]
        taken = []
        while count:
            first = self._rows[0]
            taken.append(first.slice(0, count))
            if count < first.num_rows:
                self._rows[0] = first.slice(count)
                break
            count -= first.num_rows
            del self._rows[0]
        return keys, taken


def _merged(streams: list[_Stream]) -> Iterator[pa.Table]:
    """The rows of all streams in the order of their keys; rows of one key follow the streams."""
    while True:
        for stream in streams:
            stream.refill()
        streams = [stream for stream in streams if stream.keys]
        if not streams:
            return
        # Only rows before all that may still come; those of one key leave together.
        bound = min((one.keys[-1] for one in streams if not one.ended), default=None)
        counts = [
            len(one.keys) if bound is None else bisect_left(one.keys, bound) for one in streams
        ]
        if not any(counts):
            for one in streams:
                if not one.ended and one.keys[-1] == bound:
                    one.extend()
            continue
        taken = [one.take(count) for one, count in zip(streams, counts, strict=True)]
        keys = [key for keys, _ in taken for key in keys]
        yield _ordered([batch for _, batches in taken for batch in batches], keys)


def _ordered(batches: list[pa.RecordBatch], keys: Keys) -> pa.Table:
    """The rows sorted by their ``keys``; equal ones keep their order."""
    table = pa.Table.from_batches(batches).combine_chunks()
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return table.take(pa.array(order, pa.int64())).combine_chunks()


def _sorted_runs(
    batches: Iterable[pa.RecordBatch], keys_of: KeysOf, folder: str, run_bytes: int = _RUN_BYTES
) -> list[Iterator[pa.RecordBatch]]:
    """``batches`` as runs of ``run_bytes``, each of them sorted, in files that go when they are
    closed."""
    runs: list[Iterator[pa.RecordBatch]] = []
    waiting: list[pa.RecordBatch] = []
    size = 0
    for batch in chain(batches, (None,)):
        if batch is not None:
            waiting.append(batch)
            size += batch.nbytes
        if waiting and (batch is None or size >= run_bytes):
            keys = [key for one in waiting for key in keys_of(one)]
            table = _ordered(waiting, keys)
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed when it was read
            with pa.ipc.new_stream(file, table.schema) as writer:
                rows = _RUN_BATCH * len(table) // max(1, table.nbytes)
                writer.write_table(table, max_chunksize=max(1, rows))
            file.seek(0)
            runs.append(_read_run(file))
            waiting, size = [], 0
    return runs


def allow_open_files(count: int) -> None:
    """Have this process open ``count`` files at once, beside others, if the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + 200
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _read_run(file: Any) -> Iterator[pa.RecordBatch]:
    with file:
        yield from pa.ipc.open_stream(file)


def _places(batch: pa.RecordBatch) -> Keys:
    """The places of rows in the source."""
    return _values(batch, ORDINAL)


def _names(batch: pa.RecordBatch) -> Keys:
    """Keys that sort rows by their names."""
    names = _values(batch, "file_name")
    return [name_order(from_utf8(name) if "\\" in name else name) for name in names]


def _values(batch: pa.RecordBatch, column: str) -> Keys:
    """The values of a column that all rows have."""
    index = batch.schema.get_field_index(column)
    if index < 0 or batch.column(index).null_count:
        raise SourceError("sources", f"Shares have rows without {column}, by which they are merged")
    return batch.column(index).to_pylist()
