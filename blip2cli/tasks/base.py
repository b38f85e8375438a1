"""What a task is: the part that turns a batch of images into rows of the output."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol, Self

from blip2cli.sinks.base import Column

if TYPE_CHECKING:
    from blip2cli.images.batch_stream import LoadedBatch, LoadedImage
    from blip2cli.model.families import Family
    from blip2cli.model.wrapper import Blip2

Row = dict[str, object]

# Six decimals of a log-probability are far finer than any use of it, and keep files small.
LOGPROB_DECIMALS = 6
ABSTAINED = "abstained"  # the flag of a row that keeps its guess back


class BaseTask(Protocol):
    """What tasks of images and of texts have in common. Tasks are frozen: ``fit`` gives a new
    one."""

    @property
    def name(self) -> str:
        """The subcommand: ``caption``, ``ask`` or ``embed``."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the rows, in order; of images behind name, width and height."""

    @property
    def settings(self) -> dict[str, object]:
        """What shaped the rows, apart from the model; plain JSON values."""

    def check(self, model: str, family: Family) -> None:
        """Raise ``OptionError``, naming ``model``, when models of ``family`` cannot do this."""

    def fit(self, model: Blip2) -> Self:
        """This task with what only the loaded model knows, such as the size of a vector.

        Raises ``OptionError`` when ``model`` cannot do this.
        """


class Task(BaseTask, Protocol):
    """Turns images into rows."""

    @property
    def only(self) -> Collection[str] | None:
        """File names this task is about; ``None`` when it is about every image."""

    def rows(self, model: Blip2, batch: LoadedBatch) -> list[Row]:
        """Complete rows of the batch's good images, in order."""

    def row_count(self, file_name: str) -> int:
        """How many rows the image of this name has, good or failed."""

    def failed_rows(self, item: LoadedImage) -> list[Row]:
        """Rows of one image that could not be used: the task's columns are null."""


def first_columns(batch: LoadedBatch) -> list[Row]:
    """The columns that every row begins with, for each image of ``batch.pixels`` in their order."""
    return [
        {"file_name": item.file_name, "width": item.width, "height": item.height}
        for item in batch.items
        if item.error is None
    ]


def blank(item: LoadedImage, columns: Sequence[Column]) -> Row:
    """The row of a failed image: every one of ``columns`` is null, and so are the first columns
    but the name."""
    row: Row = {"file_name": item.file_name, "width": None, "height": None}
    return row | {column.name: None for column in columns}
