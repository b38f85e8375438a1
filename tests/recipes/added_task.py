"""A task with an option of its own: how bright an image is, rounded to ``digits`` digits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Self

import blip2cli.options as groups
from blip2cli.cli import app
from blip2cli.cli.flags.command import Required
from blip2cli.options import OptionGroup, ReportOptions, RunOptions
from blip2cli.options.declare import VECTORS, declare
from blip2cli.sinks.base import Column
from blip2cli.tasks.base import Row, blank, first_columns
from tests.recipes.register import put_module, run_command

if TYPE_CHECKING:
    from blip2cli.images.batch_stream import LoadedBatch, LoadedImage
    from blip2cli.model.families import Family
    from blip2cli.model.wrapper import Blip2

EXAMPLES = ("blip2cli brightness photos --digits 3",)


@dataclass(frozen=True)
class BrightnessOptions(OptionGroup):
    """The option of the task."""

    digits: int = declare(
        2,
        shapes_rows=True,
        about_images=True,
        panel=VECTORS,
        help="Digits behind the point.",
        brief=True,
        metavar="N",
        minimum=0,
    )


@dataclass(frozen=True)
class BrightnessTask:
    """One row per image: ``brightness``, the mean of its pixel values."""

    options: BrightnessOptions = field(default_factory=BrightnessOptions)

    name = "brightness"
    only = None
    columns = (Column("brightness", "float"),)

    @property
    def settings(self) -> dict[str, object]:
        return {"task": self.name} | self.options.settings

    def check(self, model: str, family: Family) -> None:
        """Any model will do."""

    def fit(self, model: Blip2) -> Self:
        return self

    def rows(self, model: Blip2, batch: LoadedBatch) -> list[Row]:
        means = batch.pixels.float().mean(dim=(1, 2, 3)).tolist()
        return [
            row | {"brightness": round(mean, self.options.digits)}
            for row, mean in zip(first_columns(batch), means, strict=True)
        ]

    def row_count(self, file_name: str) -> int:
        return 1

    def failed_rows(self, item: LoadedImage) -> list[Row]:
        return [blank(item, self.columns)]


def brightness(
    run: Annotated[RunOptions, Required(("sources",))],
    options: BrightnessOptions,
    report: ReportOptions,
) -> int:
    """Write how bright every image is."""
    from blip2cli.cli.run_command import run_command as run_job
    from blip2cli.pipeline.image_items import ImageItems
    from blip2cli.pipeline.job import Job

    return run_job(Job(ImageItems(), BrightnessTask(options), run), report)


if __name__ == "__main__":
    put_module("blip2cli.cli.brightness")
    groups.GROUPS = (*groups.GROUPS, BrightnessOptions)
    app.COMMANDS["brightness"] = "Write how bright every image is."
    run_command()
