"""A data set as it is published: Parquet shards, and a card.

``data/train-00000-of-00002.parquet`` and so on, with the images where they are taken along, and a
``README.md`` that says what it is (see ``dataset_card``). ``datasets.load_dataset`` reads the
folder; ``hf upload`` puts it on the hub.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pyarrow as pa

from blip2cli.convert.base import Reader, Writer
from blip2cli.convert.dataset_card import CardCounts, card, read_summary
from blip2cli.convert.examples import LeftOut
from blip2cli.convert.files import check_folder, new_folder
from blip2cli.convert.formats.image_parquet import ImageParquetWriter
from blip2cli.convert.formats.parquet import ParquetWriter
from blip2cli.convert.images import local_name, without_nulls
from blip2cli.errors import OutputError
from blip2cli.options import ConvertOptions
from blip2cli.storage import durable

SHARD_BYTES = 500 << 20  # as ``datasets`` has it
_STEP = 64  # images, behind which it is looked how large a shard is


class DatasetWriter:
    """Writes a new folder, which appears complete or not at all."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        """Raises UserError, OSError."""
        out = options.destination
        check_folder(out, options.overwrite)
        if os.path.isdir(out) and not {"README.md", "data"}.issuperset(os.listdir(out)):
            raise OutputError(
                "destination",
                f"The folder {out!r} holds other files than those of a data set",
                "choose another name",
            )
        self._summary = read_summary(options.run_summary)
        self._options, self._reader = options, reader
        self._text = next((n for n in ("caption", "answer") if n in reader.schema.names), None)
        self._left_out = LeftOut()
        self.notes: list[str] = []
        self._counts = CardCounts()
        self._shard: Writer | None = None
        self._paths: list[str] = []
        self._rows = self._bytes = 0  # of the shard
        self._folder = new_folder(out)
        os.mkdir(os.path.join(self._folder.path, "data"))
        try:
            self._open()  # what is wrong with the images is said before rows are read
        except BaseException:
            self.abort()
            raise

    def write(self, batch: pa.RecordBatch) -> None:
        if self._text is not None:
            batch = without_nulls(batch, self._text, self._left_out)
        while batch.num_rows:
            if self._shard is None:
                self._open()
            assert self._shard is not None
            head = batch.slice(0, self._fitting(batch))
            self._shard.write(head)
            self._counts.add(head)
            self._rows += head.num_rows
            self._bytes += self._size(head)
            batch = batch.slice(head.num_rows)
            if self._rows == self._options.shard_size or self._bytes >= SHARD_BYTES:
                self._close()

    def finish(self) -> None:
        self._close()
        for number, path in enumerate(self._paths):
            name = f"train-{number:05d}-of-{len(self._paths):05d}.parquet"
            os.rename(path, os.path.join(os.path.dirname(path), name))
        self._counts.left_out = self._left_out.count
        text = card(self._options, self._reader, self._counts, self._summary)
        place = os.path.join(self._folder.path, "README.md")
        durable.replace_file(durable.temporary_name(place), place, text.encode())
        self._folder.commit()
        self.notes += self._left_out.notes()

    def abort(self) -> None:
        if self._shard is not None:
            self._shard.abort()
        self._folder.abort()

    def _fitting(self, batch: pa.RecordBatch) -> int:
        """How many of the rows are written next."""
        fitting = batch.num_rows
        if self._options.shard_size is not None:
            fitting = min(fitting, self._options.shard_size - self._rows)
        if self._options.image_root is not None:
            fitting = min(fitting, _STEP)
        return fitting

    def _size(self, batch: pa.RecordBatch) -> int:
        root = self._options.image_root
        if root is None:
            return batch.nbytes
        names = map(local_name, batch.column("file_name").to_pylist())
        return batch.nbytes + sum(os.path.getsize(os.path.join(root, name)) for name in names)

    def _open(self) -> None:
        path = os.path.join(self._folder.path, "data", f"train-{len(self._paths):05d}.parquet")
        if self._options.image_root is not None:
            self._shard = ImageParquetWriter(replace(self._options, destination=path), self._reader)
        else:
            schema = pa.schema([field for field in self._reader.schema if field.name != "error"])
            self._shard = _WithoutErrors(ParquetWriter(path, schema, self._reader.settings), schema)
        self._paths.append(path)
        self._rows = self._bytes = 0

    def _close(self) -> None:
        if self._shard is not None:
            self._shard.finish()
        self._shard = None


class _WithoutErrors:
    """Writes rows without the column of failures, which good rows have no use for."""

    def __init__(self, writer: ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._names = writer, schema.names
        self.notes = writer.notes

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write(batch.select(self._names))

    def finish(self) -> None:
        self._writer.finish()

    def abort(self) -> None:
        self._writer.abort()


open_writer = DatasetWriter
