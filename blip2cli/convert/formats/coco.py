"""Results files of the COCO caption and the VQA evaluation: JSON arrays.

``[{"image_id": int, "caption": str}]`` and ``[{"question_id": int, "answer": str}]``, every id
once. pycocotools and the VQA scripts stop at ids that the annotations lack; VQA's also at missing
ones.
"""

from __future__ import annotations

import pyarrow as pa

from blip2cli.convert.formats.base import Examples, Reader, need
from blip2cli.convert.formats.json_array import ArrayFile
from blip2cli.convert.ids import Ids, id_of, wanted_ids
from blip2cli.convert.images import decoded
from blip2cli.convert.options import ConvertOptions


def write(options: ConvertOptions, reader: Reader) -> ResultsWriter:
    """A writer for rows like those of ``reader``. Raises UserError, OSError."""
    return ResultsWriter(options, reader)


class ResultsWriter:
    """Writes one results file."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        questions = options.write_as == "vqa"
        self._key, self._text = ("question_id", "answer") if questions else ("image_id", "caption")
        self._column = options.text_column or self._text
        what = f"--to {options.write_as}"
        need(reader.schema, self._column, what, "Name the column of texts with --text-column.")
        self._id = id_of(options, reader.schema, questions)
        file = options.annotations
        wanted = wanted_ids(file, questions) if file is not None else None
        self._ids = Ids(wanted, self._key, file)
        self._failed = Examples()
        self.notes: list[str] = []
        self._out = ArrayFile(options.destination)

    def write(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            text = decoded(row[self._column])
            if text is None:
                self._failed.add(decoded(row.get("file_name")))
                continue
            number = self._id(row)
            self._ids.add(number, row)
            self._out.add({self._key: number, self._text: text})

    def finish(self) -> None:
        self._ids.complete()
        self._out.finish()
        if self._failed.count:
            self.notes.append(
                f"Left out {self._failed.count} without a text (failed images): {self._failed}."
            )

    def abort(self) -> None:
        self._out.abort()
