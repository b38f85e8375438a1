"""The folder that clip-retrieval builds an index from.

``img_emb/img_emb_0.npy`` (float16, L2-normalised) and ``metadata/metadata_0.parquet``, aligned row
by row, with the images' names in ``image_path``. With ``--shard-size`` there are several of both,
numbered with leading zeros.
"""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa

from blip2cli.convert.files import OutputFolder, check_folder
from blip2cli.convert.formats.base import Examples, Reader, Renamed, Told
from blip2cli.convert.formats.npy import (
    NpyFile,
    Vectors,
    VectorsReader,
    key_schema,
    vector_size,
    vectors_of,
    with_vectors,
)
from blip2cli.convert.formats.parquet import ParquetReader, ParquetWriter
from blip2cli.convert.images import need_names
from blip2cli.convert.merge import Merged, natural
from blip2cli.convert.options import ConvertOptions
from blip2cli.errors import OutputError, SourceError

_PATH = "image_path"
_FOLDERS = ("img_emb", "metadata")


def write(options: ConvertOptions, reader: Reader) -> ClipRetrievalWriter:
    """A writer for rows like those of ``reader``. Raises UserError, OSError."""
    return ClipRetrievalWriter(options, reader)


def read(path: str, options: ConvertOptions, told: Told) -> Reader:
    """The rows of such a folder; ``image_path`` is called ``file_name``. Raises SourceError."""
    folder = os.path.join(path, "img_emb")
    names = sorted((n for n in os.listdir(folder) if n.endswith(".npy")), key=natural)
    if not names:
        raise SourceError(f"{folder!r} holds no .npy file.")
    parts: list[Reader] = []
    for name in names:
        number = name.removeprefix("img_emb_").removesuffix(".npy")
        keys = os.path.join(path, "metadata", f"metadata_{number}.parquet")
        if not os.path.exists(keys):
            raise SourceError(f"{keys!r} is missing, the metadata of {name}.")
        vectors = VectorsReader(os.path.join(folder, name), ParquetReader(keys))
        parts.append(Renamed(vectors, {_PATH: "file_name"}))
    return parts[0] if len(parts) == 1 else Merged(parts)


class ClipRetrievalWriter:
    """Writes one folder."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        need_names(reader, "clip-retrieval")
        self._size = vector_size(reader)
        self._per_part = options.shard_size
        out = options.destination
        check_folder(out, options.overwrite)
        if os.path.isdir(out) and os.listdir(out):
            raise OutputError(
                f"The folder {out!r} is not empty, and parts of another index in it would be mixed "
                "up with these; remove it, or choose another name."
            )
        self._folder = OutputFolder(out)
        schema = key_schema(reader)
        self._names = [_PATH if n == "file_name" else n for n in schema.names]
        self._schema = pa.schema([f.with_name(n) for f, n in zip(schema, self._names, strict=True)])
        self._parts: list[tuple[NpyFile, ParquetWriter]] = []
        self._failed = Examples()
        self.notes: list[str] = []

    def write(self, batch: pa.RecordBatch) -> None:
        batch = with_vectors(batch, self._failed)
        while batch.num_rows:
            if not self._parts or self._parts[-1][0].rows == self._per_part:
                self._open()
            vectors, keys = self._parts[-1]
            room = self._per_part - vectors.rows if self._per_part else batch.num_rows
            part = batch.slice(0, room)
            batch = batch.slice(part.num_rows)
            vectors.add(_normal(vectors_of(part, self._size)))
            keys.write(part.drop_columns(["embedding"]).rename_columns(self._names))

    def finish(self) -> None:
        if not self._parts:
            self._open()
        self._close()
        self._number()
        self._folder.commit()
        if self._failed.count:
            self.notes.append(f"Left out {self._failed.count} without a vector: {self._failed}.")

    def abort(self) -> None:
        for vectors, keys in self._parts:
            vectors.abort()
            keys.abort()
        self._folder.abort()

    def _open(self) -> None:
        self._close()
        number = len(self._parts)
        names = (f"img_emb/img_emb_{number}.npy", f"metadata/metadata_{number}.parquet")
        vectors, keys = (self._folder.file(name) for name in names)
        self._parts.append(
            (
                NpyFile(vectors, self._size, np.dtype("<f2")),
                ParquetWriter(keys, self._schema, None),
            )
        )

    def _close(self) -> None:
        if self._parts:
            vectors, keys = self._parts[-1]
            vectors.complete()
            vectors.out.commit()
            keys.finish()

    def _number(self) -> None:
        """Leading zeros, now that it is known how many parts there are."""
        width = len(str(len(self._parts) - 1))
        for number in range(len(self._parts)):
            for folder, suffix in zip(_FOLDERS, (".npy", ".parquet"), strict=True):
                name = f"{folder}/{folder}_{number}{suffix}"
                padded = f"{folder}/{folder}_{number:0{width}d}{suffix}"
                os.replace(self._folder.file(name), self._folder.file(padded))


def _normal(vectors: Vectors) -> Vectors:
    """Each row with the length 1; one of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), np.float32)
