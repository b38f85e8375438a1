"""Parquet that holds the images themselves, as Hugging Face ``datasets`` reads it.

The column ``image`` is ``struct<bytes: binary, path: string>``; the schema's metadata says that it
is the feature ``Image``. Image files go in as they are.
"""

from __future__ import annotations

import json

import pyarrow as pa

from blip2cli.convert.formats.base import Examples, Reader
from blip2cli.convert.formats.parquet import ParquetWriter
from blip2cli.convert.images import image_bytes, image_root, local_name, need_names
from blip2cli.convert.kernels import pc
from blip2cli.convert.options import ConvertOptions
from blip2cli.errors import SourceError

IMAGE = "image"
_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_AT_ONCE = 64 << 20  # bytes of images handed on together


def write(options: ConvertOptions, reader: Reader) -> ImageParquetWriter:
    """A writer for rows like those of ``reader``. Raises UserError, OSError."""
    return ImageParquetWriter(options, reader)


class ImageParquetWriter:
    """Writes one Parquet file."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        need_names(reader, "Parquet with images")
        if IMAGE in reader.schema.names:
            raise SourceError("The rows have a column image already; rename it.")
        self._root = image_root(options, "Parquet with images")
        about = {"info": {"features": {IMAGE: {"_type": "Image"}}}}
        schema = pa.schema(
            [pa.field(IMAGE, _TYPE), *(f for f in reader.schema if f.name != "error")],
            metadata={b"huggingface": json.dumps(about).encode()},
        )
        self._schema = schema
        self._text = next((n for n in ("caption", "answer") if n in schema.names), None)
        self._failed = Examples()
        self._last: tuple[str, bytes] = ("", b"")
        self.notes: list[str] = []
        self._rows = ParquetWriter(options.destination, schema, reader.settings)

    def write(self, batch: pa.RecordBatch) -> None:
        if self._text is not None:
            good = pc.is_valid(batch.column(self._text))
            for name in batch.filter(pc.invert(good)).column("file_name").to_pylist():
                self._failed.add(name)
            batch = batch.filter(good)
        start, size = 0, 0
        images: list[dict[str, object]] = []
        for number, stored in enumerate(batch.column("file_name").to_pylist()):
            data = self._read(local_name(stored))
            images.append({"bytes": data, "path": stored})
            size += len(data)
            if size >= _AT_ONCE:
                self._put(batch.slice(start, number + 1 - start), images)
                start, size, images = number + 1, 0, []
        if images:
            self._put(batch.slice(start), images)

    def finish(self) -> None:
        self._rows.finish()
        if self._failed.count:
            self.notes.append(
                f"Left out {self._failed.count} without a text (failed images): {self._failed}."
            )

    def abort(self) -> None:
        self._rows.abort()

    def _read(self, name: str) -> bytes:
        if name != self._last[0]:  # the rows of ask repeat it
            self._last = (name, image_bytes(self._root, name))
        return self._last[1]

    def _put(self, batch: pa.RecordBatch, images: list[dict[str, object]]) -> None:
        columns = [batch.column(name) for name in self._schema.names if name != IMAGE]
        self._rows.write(
            pa.RecordBatch.from_arrays(
                [pa.array(images, _TYPE), *columns], schema=self._schema.remove_metadata()
            )
        )
