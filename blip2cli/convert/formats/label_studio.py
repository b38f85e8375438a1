"""Tasks for Label Studio, with what the model says as predictions; and back, what people say.

Written is a JSON array of ``{"data": {"image", "file_name", …}, "predictions": […]}``. A caption,
or an answer that was written, is a text area called ``caption`` or ``answer``; an answer that was
chosen is one of ``choices`` called ``answer``. Read is its export as JSON: a row for each
annotation, as labels for ``eval`` and ``calibrate``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa

from blip2cli.convert.arrow_json import json_rows
from blip2cli.convert.base import BATCH_ROWS, Reader, Schemas
from blip2cli.convert.column_types import as_text
from blip2cli.convert.examples import LeftOut
from blip2cli.convert.formats.json_array import ArrayFile
from blip2cli.convert.images import local_name, require_file_names, text_column
from blip2cli.errors import SourceError, option
from blip2cli.options import ConvertOptions
from blip2cli.sinks.settings import Settings
from blip2cli.sources.json_elements import json_elements
from blip2cli.storage.text_encoding import deep_from_utf8, to_utf8

IMAGE_URL = "/data/local-files/?d="  # of files that the server has on its own disk
_SHOWN = ("question", "question_id")  # what a task shows beside the image


class LabelStudioWriter:
    """Writes one JSON file of tasks."""

    def __init__(self, options: ConvertOptions, reader: Reader) -> None:
        """Raises UserError, OSError."""
        require_file_names(reader, f"{option('write_as')} label-studio")
        self._text = text_column(options, reader.schema, f"{option('write_as')} label-studio")
        self._url = IMAGE_URL if options.image_url is None else options.image_url
        rows = reader.settings.rows if reader.settings is not None else {}
        self._model = str(rows.get("model") or "blip2cli")
        self._left_out = LeftOut()
        self.notes: list[str] = []
        self._out = ArrayFile(options.destination)

    def write(self, batch: pa.RecordBatch) -> None:
        for stored in json_rows(batch):
            row = deep_from_utf8(stored)
            text = as_text(row[self._text])
            name = local_name(stored["file_name"])
            if text is None:
                self._left_out.add(name)
                continue
            data = {"image": self._url + quote(os.fsencode(name)), "file_name": to_utf8(name)}
            data |= {key: str(row[key]) for key in _SHOWN if row.get(key) is not None}
            chosen = row.get("probabilities") is not None
            prediction: dict[str, Any] = {
                "model_version": self._model,
                "result": [
                    {
                        "from_name": "answer" if "question" in data else "caption",
                        "to_name": "image",
                        "type": "choices" if chosen else "textarea",
                        "value": {"choices" if chosen else "text": [text]},
                    }
                ],
            }
            score = row.get("confidence")
            if score is None and row.get("logprob") is not None:
                score = math.exp(min(0.0, row["logprob"]))
            if score is not None:
                prediction["score"] = score
            self._out.add({"data": data, "predictions": [prediction]})

    def finish(self) -> None:
        self._out.finish()
        self.notes += self._left_out.notes()

    def abort(self) -> None:
        self._out.abort()


class LabelStudioReader:
    """The annotations in an export, each a row; those that were skipped are left out."""

    def __init__(self, path: str, image_url: str) -> None:
        """Raises SourceError."""
        self.path = path
        self.size = os.path.getsize(path)
        self.settings: Settings | None = None
        self._url = image_url
        self._left_out = LeftOut()
        self._done = False
        first = next(self._tasks(), None)
        asked = first is not None and "question" in first["data"]
        self._text = "answer" if asked else "caption"
        names = ("file_name", *(_SHOWN if asked else ()), self._text)
        self.schema = pa.schema([(name, pa.string()) for name in names])

    @property
    def notes(self) -> list[str]:
        return self._left_out.notes("an annotation")

    def position(self) -> int:
        return self.size if self._done else 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        self._left_out = LeftOut()
        rows: list[dict[str, Any]] = []
        for task in self._tasks():
            data = task["data"]
            shown = {key: to_utf8(str(data[key])) for key in _SHOWN if data.get(key) is not None}
            texts = list(_texts(task.get("annotations")))
            name = self._name(data)
            if not texts:
                self._left_out.add(name)
            rows += ({"file_name": name, **shown, self._text: to_utf8(text)} for text in texts)
            if len(rows) >= BATCH_ROWS:
                yield pa.RecordBatch.from_pylist(rows, self.schema)
                rows = []
        if rows:
            yield pa.RecordBatch.from_pylist(rows, self.schema)
        self._done = True

    def _tasks(self) -> Iterator[dict[str, Any]]:
        for number, (name, task) in enumerate(json_elements("sources", self.path), 1):
            if name or not isinstance(task, dict) or not isinstance(task.get("data"), dict):
                raise SourceError(
                    "sources",
                    f"{self.path!r}, element {number} is no task of Label Studio with its data",
                    "export as JSON, not as JSON-MIN",
                )
            yield task

    def _name(self, data: dict[str, Any]) -> str:
        name = data.get("file_name")
        if not isinstance(name, str) or not name:
            url = data.get("image")
            if not isinstance(url, str) or not url:
                raise SourceError(
                    "sources",
                    f"A task in {self.path!r} has neither a file_name nor an image",
                    "its data have to hold one of them",
                )
            name = unquote(url.removeprefix(self._url), errors="surrogateescape")
        return to_utf8(name)


def _texts(annotations: Any) -> Iterator[str]:
    """The text or the choice of each annotation that was not skipped."""
    for one in annotations if isinstance(annotations, list) else ():
        if not isinstance(one, dict) or one.get("was_cancelled"):
            continue
        for result in one.get("result") or ():
            value = result.get("value") or {}
            found = value.get("choices") or value.get("text")
            text = found[0] if isinstance(found, list) and found else found
            if isinstance(text, str) and text.strip():
                yield text.strip()
                break


def open_reader(path: str, options: ConvertOptions, schemas: Schemas) -> LabelStudioReader:
    """The annotations in ``path``. Raises SourceError."""
    return LabelStudioReader(path, IMAGE_URL if options.image_url is None else options.image_url)


open_writer = LabelStudioWriter
