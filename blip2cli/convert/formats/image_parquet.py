"""Parquet with the images in it, as Hugging Face ``datasets`` reads it.

The column ``image`` is ``struct<bytes: binary, path: string>``; the schema's metadata says that it
is the feature ``Image``. Image files go in as they are.
"""

from __future__ import annotations

import json

import pyarrow as pa

from blip2cli.convert.base import Reader
from blip2cli.convert.examples import LeftOut
from blip2cli.convert.formats.parquet import ParquetWriter
from blip2cli.convert.images import (
    image_bytes,
    image_root,
    local_name,
    require_file_names,
    without_nulls,
)
from blip2cli.errors import SourceError
from blip2cli.options import ConvertOptions

IMAGE = "image"
_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_BATCH_BYTES = 64 << 20  # of images


class ImageParquetWriter:
    """Writes one Parquet file."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        """Raises UserError, OSError."""
        require_file_names(reader, "Parquet with images")
        if IMAGE in reader.schema.names:
            raise SourceError("sources", "The rows have a column image already", "rename it")
        self._root = image_root(options, "Parquet with images")
        about = {"info": {"features": {IMAGE: {"_type": "Image"}}}}
        schema = pa.schema(
            [pa.field(IMAGE, _TYPE), *(f for f in reader.schema if f.name != "error")],
            metadata={b"huggingface": json.dumps(about).encode()},
        )
        self._schema = schema
        self._text = next((n for n in ("caption", "answer") if n in schema.names), None)
        self._left_out = LeftOut()
        self._last: tuple[str, bytes] = ("", b"")
        self.notes: list[str] = []
        self._rows = ParquetWriter(options.destination, schema, reader.settings)

    def write(self, batch: pa.RecordBatch) -> None:
        if self._text is not None:
            batch = without_nulls(batch, self._text, self._left_out)
        start, size = 0, 0
        images: list[dict[str, object]] = []
        for number, stored in enumerate(batch.column("file_name").to_pylist()):
            data = self._read(local_name(stored))
            images.append({"bytes": data, "path": stored})
            size += len(data)
            if size >= _BATCH_BYTES:
                self._put(batch.slice(start, number + 1 - start), images)
                start, size, images = number + 1, 0, []
        if images:
            self._put(batch.slice(start), images)

    def finish(self) -> None:
        self._rows.finish()
        self.notes += self._left_out.notes()

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


open_writer = ImageParquetWriter
