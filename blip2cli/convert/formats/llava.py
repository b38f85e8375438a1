"""Conversations that LLaVA is trained on, from the rows of ``ask``: one for each image.

``{"id", "image", "conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}, …]}``.
``<image>`` stands in the first human turn and nowhere else: the trainer puts the image's tokens
in its place wherever it finds it.
"""

from __future__ import annotations

import os

import pyarrow as pa

from blip2cli.convert.base import Reader, require_column
from blip2cli.convert.column_types import as_text
from blip2cli.convert.examples import LeftOut
from blip2cli.convert.formats.json_array import ArrayFile
from blip2cli.convert.images import ImageGroups, Row, require_file_names
from blip2cli.errors import SourceError, option
from blip2cli.options import ConvertOptions
from blip2cli.storage.hash_set import HashSet

_MARK = "<image>"


class LlavaWriter:
    """Writes one JSON file."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        """Raises UserError, OSError."""
        what = f"{option('write_as')} llava"
        require_file_names(reader, what)
        self._answer = options.text_column or "answer"
        for column in ("question", self._answer):
            require_column(reader.schema, column, what, "it takes the results of blip2cli ask")
        self._images = ImageGroups(self._add)
        self._seen = HashSet()
        self._left_out = LeftOut()
        self.notes: list[str] = []
        self._out = ArrayFile(options.destination)

    def write(self, batch: pa.RecordBatch) -> None:
        self._images.add(batch)

    def finish(self) -> None:
        self._images.end()
        self._out.finish()
        self.notes += self._left_out.notes("an answer")

    def abort(self) -> None:
        self._out.abort()

    def _add(self, name: str, rows: list[Row]) -> None:
        if not self._seen.add(name):
            raise SourceError(
                "sources",
                f"The rows of {name!r} do not follow one another, so they would become two "
                "conversations",
                "sort the rows by file_name, or convert the files apart",
            )
        turns: list[dict[str, str]] = []
        for row in rows:
            question, answer = as_text(row["question"]), as_text(row[self._answer])
            if question is None or answer is None:
                self._left_out.add(name)
                continue
            mark = "" if turns else f"{_MARK}\n"
            turns += [
                {"from": "human", "value": mark + _unmarked(question)},
                {"from": "gpt", "value": _unmarked(answer)},
            ]
        if turns:
            stem = os.path.splitext(name)[0]
            self._out.add({"id": stem, "image": name, "conversations": turns})


def _unmarked(text: str) -> str:
    return text.replace(_MARK, "image")


open_writer = LlavaWriter
