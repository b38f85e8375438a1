"""Rows as the Python API returns them: dictionaries, and their forms as objects, table and HTML.

The keys are those of the command's outputs (``docs/reference/rows.md``). ``CaptionRow`` and
``AnswerRow`` have a field for every one that any run has; it is None where a run does not make it.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from blip2cli.sinks.base import IDENTITY, Column, RowSchema
from blip2cli.storage.text_encoding import printable

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from blip2cli.images.batch_stream import LoadedBatch
    from blip2cli.options import EmbeddingDtype
    from blip2cli.tasks.base import Row, Task

SHOWN = 20  # rows that a notebook shows, and images at most whose thumbnails are made
_SIDE = 96  # pixels of the longer side of a thumbnail
_UNSHOWN = ("width", "height")


@dataclass(frozen=True)
class Candidate:
    """One of several captions."""

    text: str
    logprob: float
    match: float | None = None  # the score of a model that ranks


@dataclass(frozen=True)
class Choice:
    """An answer that could be chosen."""

    choice: str
    probability: float  # of all choices together 1


@dataclass(frozen=True)
class ChoiceScore:
    """What the norms of a choice are made of."""

    choice: str
    logprob: float  # of the whole text
    tokens: int
    blank_logprob: float | None


@dataclass(frozen=True)
class CaptionRow:
    """The caption of one image."""

    file_name: str
    width: int | None  # pixels, upright; None: the image failed
    height: int | None
    caption: str | None
    logprob: float | None  # mean of the tokens
    flag: str | None  # empty: a good text
    match: float | None = None
    candidates: tuple[Candidate, ...] | None = None
    confidence: float | None = None
    guess: str | None = None  # what the caption would be, where it is kept back
    error: str | None = None  # "error_type: message"; empty: none


@dataclass(frozen=True)
class AnswerRow:
    """The answer to one question about one image."""

    file_name: str
    width: int | None
    height: int | None
    question: str
    question_id: str
    answer: str | None
    logprob: float | None
    flag: str | None
    probabilities: tuple[Choice, ...] | None = None
    choice_mass: float | None = None  # the probability that any choice is written
    choice_scores: tuple[ChoiceScore, ...] | None = None
    confidence: float | None = None
    guess: str | None = None
    error: str | None = None


_NESTED: dict[str, type[Any]] = {
    "candidates": Candidate,
    "probabilities": Choice,
    "choice_scores": ChoiceScore,
}
AnyRow = TypeVar("AnyRow", CaptionRow, AnswerRow)


class Rows(list[dict[str, Any]], Generic[AnyRow]):
    """A list of rows, each a dictionary, that knows the columns of its rows.

    >>> row = {"file_name": "a.png", "width": 4, "height": 3}
    >>> rows = Rows(CaptionRow, (Column("caption", "string"), Column("logprob", "float"),
    ...                          Column("flag", "string")))
    >>> rows.append(row | {"caption": "a cat", "logprob": -0.5, "flag": ""})
    >>> rows[0]["caption"], rows.as_objects()[0].caption, rows.as_table().num_rows
    ('a cat', 'a cat', 1)
    """

    def __init__(
        self, kind: type[AnyRow], columns: Sequence[Column], inline_errors: bool = False
    ) -> None:
        """No rows yet, of a task with these ``columns``; ``inline_errors``: they have ``error``."""
        super().__init__()
        self._kind: type[AnyRow] = kind
        self._schema = RowSchema.of(columns, inline_errors)
        self._thumbnails: dict[str, str] = {}  # addresses that hold them, by ``file_name``

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns behind name and size, in order."""
        return self._schema.columns[len(IDENTITY) :]

    def as_objects(self) -> list[AnyRow]:
        """The rows as objects with typed attributes."""
        return [self._kind(**{k: _nested(k, v) for k, v in row.items()}) for row in self]

    def as_table(self) -> pa.Table:
        """The rows as an Arrow table, with the columns and types of the command's Parquet files."""
        import pyarrow as pa

        from blip2cli.sinks.row_groups import arrow_schema, to_batch
        from blip2cli.sinks.settings import Settings

        schema = self._schema
        arrow = arrow_schema(schema, Settings({})).remove_metadata()
        complete = [schema.complete(row) for row in self]
        return pa.Table.from_batches([to_batch(complete, schema, arrow)])

    def add_thumbnails(self, batch: LoadedBatch) -> None:
        """Have a notebook show the images of ``batch``, as far as it shows their rows."""
        good = (item for item in batch.items if item.error is None)
        for item, pixels in zip(good, batch.pixels, strict=True):
            if len(self._thumbnails) == SHOWN or item.width is None or item.height is None:
                return
            planes = pixels.numpy()
            self._thumbnails[item.file_name] = _address(planes, item.width, item.height)

    def _repr_html_(self) -> str:
        """The first rows as a notebook shows them, with thumbnails."""
        columns: list[str] = [name for name in self[0] if name not in _UNSHOWN] if self else []
        heads = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *columns))
        lines = [f"<tr>{self._thumbnail(row)}{_cells(row, columns)}</tr>" for row in self[:SHOWN]]
        left = len(self) - SHOWN
        more = f"<p>… and {left} more</p>" if left > 0 else ""
        return f"<table><tr>{heads}</tr>{''.join(lines)}</table>{more}"

    def _thumbnail(self, row: Mapping[str, Any]) -> str:
        address = self._thumbnails.get(row["file_name"])
        return "<td></td>" if address is None else f'<td><img src="{address}" alt=""></td>'


def with_failed(task: Task, batch: LoadedBatch, rows: Sequence[Row]) -> Iterator[Row]:
    """The rows of a batch, with those of failed images among them; all have ``error``."""
    left = iter(rows)
    for item in batch.items:
        if item.error is None:
            own, error = list(islice(left, task.row_count(item.file_name))), ""
        else:
            own, error = task.failed_rows(item), f"{item.error.error_type}: {item.error}"
        for row in own:
            yield row | {"error": error}


def stacked(
    rows: Sequence[Mapping[str, object]], size: int | None, dtype: EmbeddingDtype
) -> np.ndarray:
    """The vectors of rows, ``dtype`` [N, D]; ``size`` is D where there are none."""
    import numpy as np

    if not rows:
        return np.zeros((0, size or 0), dtype=dtype)
    return np.stack([cast("np.ndarray", row["embedding"]) for row in rows])


def _nested(name: str, value: Any) -> Any:
    kind = _NESTED.get(name)
    return value if kind is None or value is None else tuple(kind(**each) for each in value)


def _cells(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    return "".join(f"<td>{html.escape(_text(row[name]))}</td>" for name in columns)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):  # of candidates or choices
        return ", ".join(" ".join(map(_text, each.values())) for each in value)
    return printable(str(value))


def _address(planes: np.ndarray, width: int, height: int) -> str:
    """A ``data:`` address of the image in its own proportions."""
    from PIL import Image

    scale = min(1.0, _SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(planes.transpose(1, 2, 0)).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
