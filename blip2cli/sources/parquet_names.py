"""The names of a Parquet file's columns, from the first bytes of its footer.

For those who cannot wait until pyarrow is imported. The footer is a struct ``FileMetaData`` in
Thrift's compact protocol (``parquet.thrift`` of apache/parquet-format,
``thrift-compact-protocol.md`` of apache/thrift), and the schema its second field: what comes after
it is not read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

_MOST_BYTES = 1 << 20
_SCHEMA, _NAME, _CHILDREN = 2, 4, 5  # fields of FileMetaData, and of SchemaElement
_BOOLEANS, _DOUBLE, _BINARY, _LISTS, _MAP, _STRUCT = (1, 2), 7, 8, (9, 10), 11, 12
_INTEGERS = (4, 5, 6)


def parquet_names(path: str) -> list[str]:
    """The names of the columns, of nested ones the outermost.

    Raises OSError, and ValueError for a file that is none, or whose schema takes over a MiB.
    """
    with open(path, "rb") as file:
        file.seek(-8, os.SEEK_END)
        length, magic = struct.unpack("<I4s", file.read(8))
        if magic != b"PAR1":
            raise ValueError("no Parquet file")
        file.seek(-8 - length, os.SEEK_END)
        footer = file.read(min(length, _MOST_BYTES))
    try:
        return [*_outermost(_Thrift(footer).schema())]
    except IndexError as error:
        raise ValueError("no schema") from error


def _outermost(elements: Iterator[tuple[str, int]]) -> Iterator[str]:
    """Names of those that lie in the root itself, of ``elements`` depth first, the root before."""
    next(elements, None)
    inside = 0  # elements to come that lie in an outermost one
    for name, children in elements:
        if inside:
            inside -= 1
        else:
            yield name
        inside += children


class _Thrift:
    """Bytes in the compact protocol, read one value after the other. Raises IndexError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def schema(self) -> Iterator[tuple[str, int]]:
        """Name and number of children of each element of the schema."""
        for field, kind in self._fields():
            if field != _SCHEMA:
                self._skip(kind)
                continue
            for _ in range(self._list()[0]):
                yield self._element()
            return

    def _element(self) -> tuple[str, int]:
        name, children = "", 0
        for field, kind in self._fields():
            if field == _NAME:
                name = self._bytes(self._varint()).decode("utf-8", "replace")
            elif field == _CHILDREN:
                children = self._varint() >> 1  # never negative
            else:
                self._skip(kind)
        return name, children

    def _fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct, whose value is read before the next."""
        field = 0
        while header := self._byte():
            step, kind = header >> 4, header & 15
            field = field + step if step else self._varint() >> 1
            yield field, kind

    def _skip(self, kind: int) -> None:
        if kind in _INTEGERS:
            self._varint()
        elif kind == _BINARY:
            self._bytes(self._varint())
        elif kind == _STRUCT:
            for _, inner in self._fields():
                self._skip(inner)
        elif kind in _LISTS:
            size, inner = self._list()
            for _ in range(size):
                self._skip(inner) if inner not in _BOOLEANS else self._byte()
        elif kind == _DOUBLE:
            self._bytes(8)
        elif kind == _MAP:
            raise IndexError("a schema holds none")
        elif kind not in _BOOLEANS:
            self._byte()

    def _list(self) -> tuple[int, int]:
        """The length of a list and the type of its elements."""
        header = self._byte()
        size = header >> 4
        return (self._varint() if size == 15 else size), header & 15

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]
