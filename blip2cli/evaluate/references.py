"""References: texts that people wrote, or labels, by image or question.

Four kinds of files are read: COCO caption annotations, VQA annotations (ten answers a question),
verdicts of people on texts that they were shown, and tables of any format that ``convert`` reads,
with ``file_name`` (and ``question`` or ``question_id``) and a text or a list of texts. Several rows
of a table about the same image or question are put together.

A reference is known by its key, see :data:`KEYS`; its texts are stored in Arrow, so that a million
take little memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from blip2cli.convert.examples import listed
from blip2cli.evaluate.key_index import KeyIndex, Numbers

Kind = Literal["captions", "answers"]
# What tells references apart: the columns of a row that its key is made of.
KEYS: dict[str, tuple[str, ...]] = {
    "image_id": ("file_name",),  # the id of the image, from its name
    "question_id": ("question_id",),
    "file_name": ("file_name",),
    "file_name and question_id": ("file_name", "question_id"),
    "file_name and question": ("file_name", "question"),
}
WRONG = "\0wrong"  # the name of what no column is called, for the builder
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
    ids: dict[str, str] = field(default_factory=dict)  # COCO: ids of images by file name
    notes: tuple[str, ...] = ()  # sentences about the file
    _texts: Any = None  # pa.LargeStringArray of all texts
    _ends: Any = None  # int64[n + 1]
    # Of verdicts: texts that were found to be wrong, joined by "\0", null where there are none.
    wrong: Any = None

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

    def judges(self, number: int, text: str) -> bool:
        """Whether it is known if ``text`` is right: not where all that is known of a reference is
        that another one was wrong."""
        if self.wrong is None or self._ends[number] < self._ends[number + 1]:
            return True
        return text in (self.wrong[number].as_py() or "").split("\0")

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
    """Collects texts by key, in any order, in little more memory than they have letters."""

    def __init__(self, columns: Sequence[str] = ()) -> None:
        """``columns``: what else is stored of each reference."""
        self._keys, self._texts = _Strings(), _Strings()
        self._hashes, self._images = array("q"), array("q")  # of keys, and of those of images
        self._counts = array("i")  # texts of each record
        self._columns = {name: _Strings() for name in columns}

    def __len__(self) -> int:
        return len(self._hashes)

    def add(
        self, key: str, image: str, texts: Sequence[str], more: Sequence[str | None] = ()
    ) -> None:
        """Add texts of the reference ``key``. ``more`` are its columns; the first count."""
        self._keys.add(key)
        self._hashes.append(hash(key))
        self._images.append(hash(image))
        self._counts.append(len(texts))
        for text in texts:
            self._texts.add(text)
        for values, value in zip(self._columns.values(), more, strict=True):
            values.add(value)

    def build(
        self,
        path: str,
        kind: Kind | None,
        by: str,
        ids: dict[str, str] | None = None,
        notes: Sequence[str] = (),
        first_counts: bool = False,
        order: Iterable[str] = (),
    ) -> References:
        """The references, once all are here.

        Several records of one key are put together; with ``first_counts`` all but the first are
        left out, and a note says so. References are in the order they came, or that of the keys
        in ``order``.
        """
        hashes = np.frombuffer(self._hashes, np.int64)
        counts = np.frombuffer(self._counts, np.int32)
        reference, first = _numbered(hashes)
        reference, first = _reordered(reference, first, hashes, order)
        texts, owners = self._texts.array(), np.repeat(reference, counts)
        keys, notes = self._keys.array(), list(notes)
        is_first = np.zeros(len(hashes), bool)
        is_first[first] = True
        if first_counts and len(first) < len(hashes):
            doubled = keys.take(np.flatnonzero(~is_first))
            shown = listed(doubled[:3].to_pylist(), len(doubled))
            notes.append(f"{len(doubled)} ids come again in {path}; the first counts: {shown}.")
            chosen = np.flatnonzero(np.repeat(is_first, counts))
            texts, owners = texts.take(chosen), owners[chosen]
        if np.any(np.diff(owners) < 0):
            order = np.argsort(owners, kind="stable")
            texts, owners = texts.take(order), owners[order]
        image_hashes = np.frombuffer(self._images, np.int64)[first]
        images, first_of_image = _numbered(image_hashes)
        columns = {name: values.array() for name, values in self._columns.items()}
        wrong = columns.pop(WRONG, None)
        return References(
            path,
            kind,
            by,
            KeyIndex(hashes[first]),
            keys.take(first),
            KeyIndex(image_hashes[first_of_image]),
            images,
            {n: v.take(first) for n, v in columns.items() if v.null_count < len(v)},
            ids or {},
            tuple(notes),
            texts,
            np.searchsorted(owners, np.arange(len(first) + 1)),
            None if wrong is None else wrong.take(first),
        )


class _Strings:
    """Texts that become an Arrow array bit by bit."""

    def __init__(self) -> None:
        self._chunks: list[Any] = []
        self._waiting: list[str | None] = []

    def add(self, text: str | None) -> None:
        self._waiting.append(text)
        if len(self._waiting) == _FLUSH:
            self._flush()

    def array(self) -> Any:
        """All texts, a pa.LargeStringArray."""
        self._flush()
        return pa.concat_arrays(self._chunks)

    def _flush(self) -> None:
        self._chunks.append(pa.array(self._waiting, pa.large_string()))
        self._waiting = []


def _reordered(
    reference: Numbers, first: Numbers, hashes: Numbers, order: Iterable[str]
) -> tuple[Numbers, Numbers]:
    """Numbers as from ``_numbered``, but in the order of the keys; those not in it come last."""
    wanted = np.fromiter(map(hash, order), np.int64)
    if not len(wanted):
        return reference, first
    by_hash = np.argsort(wanted, kind="stable")
    at = np.minimum(np.searchsorted(wanted[by_hash], hashes[first]), len(wanted) - 1)
    place = np.where(wanted[by_hash][at] == hashes[first], by_hash[at], len(wanted))
    new = np.argsort(place, kind="stable")
    rank = np.empty(len(new), np.int64)
    rank[new] = np.arange(len(new))
    return rank[reference], first[new]


def _numbered(hashes: Numbers) -> tuple[Numbers, Numbers]:
    """Numbers of equal values, from 0 in the order they come, and where each comes first."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse], first[order]
