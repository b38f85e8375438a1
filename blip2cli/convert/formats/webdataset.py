"""WebDataset: tar shards in which the files of one sample follow one another.

A sample has its image, a ``.txt`` with the text (the answers, one a line, in results of ask) and a
``.json`` with the row (or ``{"file_name", …, "answers": [rows]}``). Its key is ``file_name``
without suffix; the key of a member ends at the first dot of its base name, so dots there become
``_``. Shards are ``name-000000.tar`` and so on; they appear together at the end.
"""

from __future__ import annotations

import io
import os
import tarfile

import pyarrow as pa

from blip2cli.convert.base import Reader
from blip2cli.convert.column_types import as_text
from blip2cli.convert.examples import LeftOut
from blip2cli.convert.file_set import record_files
from blip2cli.convert.files import new_file
from blip2cli.convert.images import (
    ImageGroups,
    Row,
    image_bytes,
    image_root,
    local_name,
    one_line,
    require_file_names,
    text_column,
)
from blip2cli.errors import OutputError, SourceError, option
from blip2cli.options import ConvertOptions
from blip2cli.sinks.check_output import check_parent
from blip2cli.sources.image_suffixes import IMAGE_SUFFIXES
from blip2cli.storage import durable
from blip2cli.storage.atomic import AtomicFile
from blip2cli.storage.hash_set import HashSet
from blip2cli.storage.text_encoding import to_json, to_utf8

SHARD_SIZE = 10_000  # samples, as img2dataset has it
_SHARED = ("file_name", "width", "height")


class WebDatasetWriter:
    """Writes the shards."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        """Raises UserError, OSError."""
        require_file_names(reader, "WebDataset")
        self._column = text_column(options, reader.schema, "WebDataset")
        self._root = image_root(options, "WebDataset")
        self._several = "question" in reader.schema.names
        self._size = options.shard_size or SHARD_SIZE
        self._destination = options.destination
        self._stem = os.path.splitext(options.destination)[0]
        self._check(options)
        self._images = ImageGroups(self._add)
        self._keys = HashSet()
        self._left_out = LeftOut()
        self._shards: dict[str, AtomicFile] = {}  # by path
        self._tar: tarfile.TarFile | None = None
        self._in_shard = 0
        self.notes: list[str] = []
        self._names = HashSet()

    def write(self, batch: pa.RecordBatch) -> None:
        self._images.add(batch)

    def finish(self) -> None:
        self._images.end()
        if not self._shards:
            self._open()
        self._close()
        for shard in self._shards.values():
            shard.commit()
        durable.remove(*sorted(self._old - {os.path.realpath(path) for path in self._shards}))
        record_files(self._destination, list(self._shards))
        self.notes += self._left_out.notes()

    def abort(self) -> None:
        for shard in self._shards.values():
            shard.abort()

    def _check(self, options: ConvertOptions) -> None:
        check_parent(self._stem, "destination")
        folder, name = os.path.split(os.path.realpath(self._stem))
        there = [
            n for n in os.listdir(folder) if n.startswith(f"{name}-") and n.endswith(".tar")
        ]  # fmt: skip
        if there and not options.overwrite:
            raise OutputError(
                "destination",
                f"{min(there)!r} is there already",
                f"add {option('overwrite')} to replace such shards, or choose another name",
            )
        # The shards of a former conversion are numbered without a gap.
        self._old: set[str] = set()
        while (shard := f"{name}-{len(self._old):06d}.tar") in there:
            self._old.add(os.path.join(folder, shard))

    def _add(self, stored: str, rows: list[Row]) -> None:
        name = local_name(to_utf8(stored))
        if not self._several and (len(rows) > 1 or not self._names.add(name)):
            raise SourceError(
                "sources",
                f"{name!r} has several rows, and a sample holds one",
                "convert into .parquet or .jsonl instead, or leave one row an image",
            )
        texts = [as_text(row[self._column]) for row in rows]
        if all(text is None for text in texts):
            self._left_out.add(name)
            return
        data = image_bytes(self._root, name)
        if self._tar is None or self._in_shard == self._size:
            self._open()
        key, suffix = self._key(name)
        self._member(key + suffix, data)
        lines = [one_line(text or "") for text in texts]
        self._member(key + ".txt", "\n".join(lines).encode("utf-8", "surrogateescape"))
        self._member(key + ".json", to_json(self._about(rows)))
        self._in_shard += 1

    def _about(self, rows: list[Row]) -> Row:
        if not self._several:
            return rows[0]
        shared = {name: rows[0][name] for name in _SHARED if name in rows[0]}
        rest = [{k: v for k, v in row.items() if k not in _SHARED} for row in rows]
        return shared | {"answers": rest}

    def _key(self, name: str) -> tuple[str, str]:
        folder, slash, last = name.rpartition("/")
        stem, suffix = os.path.splitext(last)
        if suffix.lower() not in IMAGE_SUFFIXES:
            stem, suffix = last, ".jpg"  # decoders look at the content
        key = folder + slash + (stem.replace(".", "_") or "_")
        number = 0
        while not self._keys.add(key if not number else f"{key}-{number}"):
            number += 1
        return (f"{key}-{number}" if number else key), suffix.lower()

    def _open(self) -> None:
        self._close()
        path = f"{self._stem}-{len(self._shards):06d}.tar"
        if os.path.lexists(path) and os.path.realpath(path) not in self._old:
            problem = f"{path!r} is there already, and is no shard of a former conversion"
            raise OutputError("destination", problem, "move it away, or choose another name")
        shard = self._shards[path] = new_file(path)
        self._in_shard = 0
        self._tar = tarfile.open(  # noqa: SIM115 - closed by _close
            fileobj=shard.file, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
        )

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            next(reversed(self._shards.values())).sync()
            self._tar = None

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644  # no times and owners: equal rows, equal files
        assert self._tar is not None
        self._tar.addfile(info, io.BytesIO(data))


open_writer = WebDatasetWriter
