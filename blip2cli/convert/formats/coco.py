"""Results files of the COCO caption and the VQA evaluation (coco, vqa): JSON arrays.

``[{"image_id": int, "caption": str}]`` and ``[{"question_id": int, "answer": str}]``, every id
once. pycocotools and the VQA scripts stop at ids that the annotations lack; VQA's also at missing
ones.
"""

from __future__ import annotations

import pyarrow as pa

from blip2cli.convert.arrow_json import json_rows
from blip2cli.convert.base import Reader, require_column
from blip2cli.convert.column_types import as_text
from blip2cli.convert.examples import LeftOut
from blip2cli.convert.formats.json_array import ArrayFile
from blip2cli.convert.image_ids import IdCheck, annotated_ids, id_getter
from blip2cli.convert.images import NAME_TEXTS
from blip2cli.errors import option
from blip2cli.options import ConvertOptions
from blip2cli.storage.text_encoding import deep_from_utf8


class ResultsWriter:
    """Writes one results file."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        """Raises UserError, OSError."""
        questions = options.write_as == "vqa"
        self._key, self._text = ("question_id", "answer") if questions else ("image_id", "caption")
        self._column = options.text_column or self._text
        what = f"{option('write_as')} {options.write_as}"
        require_column(reader.schema, self._column, what, NAME_TEXTS)
        self._id = id_getter(options, reader.schema, questions)
        file = options.annotations
        annotated = annotated_ids(file, questions) if file is not None else None
        self._ids = IdCheck(annotated, self._key, file)
        self._left_out = LeftOut()
        self.notes: list[str] = []
        self._out = ArrayFile(options.destination)

    def write(self, batch: pa.RecordBatch) -> None:
        for row in json_rows(batch):
            text = as_text(deep_from_utf8(row[self._column]))
            if text is None:
                self._left_out.add(deep_from_utf8(row.get("file_name")))
                continue
            number = self._id(row)
            self._ids.add(number, row)
            self._out.add({self._key: number, self._text: text})

    def finish(self) -> None:
        self._ids.complete()
        self._out.finish()
        self.notes += self._left_out.notes()

    def abort(self) -> None:
        self._out.abort()


open_writer = ResultsWriter
