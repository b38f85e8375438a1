"""References: texts that people wrote, or labels, by image or question.

Three kinds of files are read: COCO caption annotations, VQA annotations (ten answers a question),
and tables of any format that ``convert`` reads, with ``file_name`` (and ``question`` or
``question_id``) and a text or a list of texts. Several rows of a table about the same image or
question are put together.

A reference is known by its key, see :data:`KEYS`; its texts are stored in Arrow, so that a million
take little memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from blip2cli.evaluate.key_index import Codes, KeyIndex, Numbers

Kind = Literal["captions", "answers"]
# What tells references apart: the columns of a row that its key is made of.
KEYS: dict[str, tuple[str, ...]] = {
    "image_id": ("file_name",),  # the id of the image, from its name
    "question_id": ("question_id",),
    "file_name": ("file_name",),
    "file_name and question_id": ("file_name", "question_id"),
    "file_name and question": ("file_name", "question"),
}
_FLUSH = 1 << 16  # texts that wait as Python objects


@dataclass(frozen=True)
class References:
    """All references of a file."""

    path: str
    kind: Kind | None  # None: a table, whose rows say it
    by: str  # one of KEYS
    index: KeyIndex
    keys: Any  # pa.LargeStringArray, in the order of the file
    image_index: KeyIndex  # of the keys of images: an id, or a file name
    images: Numbers  # int64[n], the number of the image a reference is about
    columns: dict[str, Any]  # pa.Array of length n: question_type, answer_type, others asked for
    ids: dict[str, int] = field(default_factory=dict)  # COCO: ids of images by file name
    notes: tuple[str, ...] = ()  # sentences about the file
    _texts: Any = None  # pa.LargeStringArray of all texts
    _ends: Any = None  # int64[n + 1]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_count(self) -> int:
        """How many images the references are about."""
        return int(self.images.max()) + 1 if len(self.images) else 0

    def texts(self, number: int) -> list[str]:
        """The texts of one reference."""
        start, end = self._ends[number], self._ends[number + 1]
        found: list[str] = self._texts.slice(start, end - start).to_pylist()
        return found

    def text_lists(self, numbers: Numbers) -> list[list[str]]:
        """The texts of several references."""
        return [self.texts(int(number)) for number in numbers]

    @property
    def text_count(self) -> int:
        """How many texts there are."""
        return len(self._texts)

    @property
    def most_texts(self) -> int:
        """The most texts a reference has."""
        return int(np.diff(self._ends).max()) if len(self) else 0

    def sample(self, count: int = 3) -> list[str]:
        """Keys of the first few, for messages."""
        return [str(key).replace("\0", ", ") for key in self.keys[:count].to_pylist()]


class ReferenceBuilder:
    """Collects texts by key, in any order."""

    def __init__(self, columns: Sequence[str] = ()) -> None:
        """``columns``: what else is stored of each reference."""
        self._keys = Codes()
        self._images = Codes()
        self._image_of = array("q")
        self._chunks: list[Any] = []
        self._waiting: list[str] = []
        self._owners = array("q")  # the reference of each text
        self._columns: dict[str, list[str | None]] = {name: [] for name in columns}

    def __len__(self) -> int:
        return len(self._keys)

    def add(
        self, key: str, image: str, texts: Sequence[str], more: Sequence[str | None] = ()
    ) -> bool:
        """Add texts of the reference ``key``; whether it is new. ``more`` are its columns."""
        before = len(self._keys)
        code = self._keys.of(key)
        new = code == before
        if new:
            self._image_of.append(self._images.of(image))
            for values, value in zip(self._columns.values(), more, strict=True):
                values.append(value)
        self._waiting += texts
        self._owners.extend([code] * len(texts))
        if len(self._waiting) >= _FLUSH:
            self._flush()
        return new

    def build(
        self,
        path: str,
        kind: Kind | None,
        by: str,
        ids: dict[str, int] | None = None,
        notes: Sequence[str] = (),
    ) -> References:
        """The references, once all are here."""
        self._flush()
        owners = np.frombuffer(self._owners, np.int64) if self._owners else np.zeros(0, np.int64)
        texts = pa.concat_arrays(self._chunks) if self._chunks else pa.array([], pa.large_string())
        if np.any(np.diff(owners) < 0):
            order = np.argsort(owners, kind="stable")
            texts, owners = texts.take(order), owners[order]
        ends = np.searchsorted(owners, np.arange(len(self._keys) + 1))
        return References(
            path,
            kind,
            by,
            KeyIndex(self._keys.keys()),
            pa.array(list(self._keys.keys()), pa.large_string()),
            KeyIndex(self._images.keys()),
            np.array(self._image_of, np.int64),
            {name: pa.array(v, pa.string()) for name, v in self._columns.items() if any(v)},
            ids or {},
            tuple(notes),
            texts,
            ends,
        )

    def _flush(self) -> None:
        if self._waiting:
            self._chunks.append(pa.array(self._waiting, pa.large_string()))
            self._waiting = []
