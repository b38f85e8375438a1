"""Folders that clip-retrieval builds an index from.

``img_emb/img_emb_0.npy`` (float16, L2-normalised) and ``metadata/metadata_0.parquet``, aligned row
by row, with the images' names in ``image_path``. With the option ``shard_size`` there are several
of both, numbered with leading zeros.
"""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa

from blip2cli.convert.base import Reader, RenamedColumns, Schemas
from blip2cli.convert.column_types import EMBEDDING
from blip2cli.convert.concat import ConcatenatedReader, natural_key
from blip2cli.convert.examples import LeftOut
from blip2cli.convert.file_set import files_below, record_files
from blip2cli.convert.files import OutputFolder, check_folder
from blip2cli.convert.formats.npy import (
    NpyFile,
    Vectors,
    VectorsReader,
    key_schema,
    vector_size,
    vectors_of,
)
from blip2cli.convert.formats.parquet import ParquetReader, ParquetWriter
from blip2cli.convert.images import require_file_names, without_nulls
from blip2cli.errors import OutputError, SourceError
from blip2cli.options import ConvertOptions
from blip2cli.storage import durable

_PATH = "image_path"
_FOLDERS = ("img_emb", "metadata")


def open_reader(path: str, options: ConvertOptions, schemas: Schemas) -> Reader:
    """The rows of such a folder; ``image_path`` is called ``file_name``. Raises SourceError."""
    folder = os.path.join(path, "img_emb")
    names = sorted((n for n in os.listdir(folder) if n.endswith(".npy")), key=natural_key)
    if not names:
        raise SourceError("sources", f"{folder!r} holds no .npy file")
    shards: list[Reader] = []
    for name in names:
        number = name.removeprefix("img_emb_").removesuffix(".npy")
        keys = os.path.join(path, "metadata", f"metadata_{number}.parquet")
        if not os.path.exists(keys):
            raise SourceError("sources", f"{keys!r} is missing, the metadata of {name}")
        vectors = VectorsReader(os.path.join(folder, name), ParquetReader(keys))
        shards.append(RenamedColumns(vectors, {_PATH: "file_name"}))
    return shards[0] if len(shards) == 1 else ConcatenatedReader(shards)


class ClipRetrievalWriter:
    """Writes one folder."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        """Raises UserError, OSError."""
        require_file_names(reader, "clip-retrieval")
        self._size = vector_size(reader)
        self._shard_size = options.shard_size
        self._destination = options.destination
        out = options.destination
        check_folder(out, options.overwrite)
        if os.path.isdir(out) and os.listdir(out):
            raise OutputError(
                "destination",
                f"The folder {out!r} is not empty, and parts of another index in it would be mixed "
                "up with these",
                "remove it, or choose another name",
            )
        self._folder = OutputFolder(out)
        schema = key_schema(reader)
        self._names = [_PATH if n == "file_name" else n for n in schema.names]
        self._schema = pa.schema([f.with_name(n) for f, n in zip(schema, self._names, strict=True)])
        self._shards: list[tuple[NpyFile, ParquetWriter]] = []
        self._left_out = LeftOut()
        self.notes: list[str] = []

    def write(self, batch: pa.RecordBatch) -> None:
        batch = without_nulls(batch, EMBEDDING, self._left_out)
        while batch.num_rows:
            if not self._shards or self._shards[-1][0].rows == self._shard_size:
                self._open()
            vectors, keys = self._shards[-1]
            left = self._shard_size - vectors.rows if self._shard_size else batch.num_rows
            head = batch.slice(0, left)
            batch = batch.slice(head.num_rows)
            vectors.add(_normalized(vectors_of(head, self._size)))
            keys.write(head.drop_columns([EMBEDDING]).rename_columns(self._names))

    def finish(self) -> None:
        if not self._shards:
            self._open()
        self._close()
        width = len(str(len(self._shards) - 1))  # of numbers, which now get leading zeros
        for number in range(len(self._shards)):
            for folder, suffix in zip(_FOLDERS, (".npy", ".parquet"), strict=True):
                name = f"{folder}/{folder}_{number}{suffix}"
                padded = f"{folder}/{folder}_{number:0{width}d}{suffix}"
                if name != padded:
                    durable.rename_to_new(self._folder.file(name), self._folder.file(padded))
        self._folder.commit()
        record_files(self._destination, files_below(self._destination))
        self.notes += self._left_out.notes("a vector")

    def abort(self) -> None:
        for vectors, keys in self._shards:
            vectors.out.abort()
            keys.abort()
        self._folder.abort()

    def _open(self) -> None:
        self._close()
        number = len(self._shards)
        names = (f"img_emb/img_emb_{number}.npy", f"metadata/metadata_{number}.parquet")
        vectors, keys = (self._folder.file(name) for name in names)
        array = NpyFile(vectors, self._size, np.dtype("<f2"))
        self._shards.append((array, ParquetWriter(keys, self._schema, None)))

    def _close(self) -> None:
        if self._shards:
            vectors, keys = self._shards[-1]
            vectors.complete()
            vectors.out.commit()
            keys.finish()


def _normalized(vectors: Vectors) -> Vectors:
    """Each row with the length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), np.float32)


open_writer = ClipRetrievalWriter
