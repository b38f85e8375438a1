"""Texts without images as the items of a job.

A file of texts is read whole, and rows of texts are quickly made again: rows are committed as they
come, but a run that was cut off is run anew, not resumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from blip2cli.errors import OptionError, option
from blip2cli.pipeline.compute.devices import several
from blip2cli.pipeline.events import Listener
from blip2cli.pipeline.plan import Plan
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sinks import Column

if TYPE_CHECKING:
    from blip2cli.images.preprocess import PixelSpec
    from blip2cli.model.wrapper import Blip2
    from blip2cli.pipeline.job import Job
    from blip2cli.tasks.embed_texts import EmbedTextsTask
    from blip2cli.tasks.texts import Texts

_IMAGE_BATCH = 16  # images in a batch where no size is given
# Texts in a batch for each image in one: texts of one length run at once, and among more texts
# there are more of one length.
_TEXTS_PER_IMAGE = 8


@dataclass(frozen=True)
class TextItems:
    """Texts, in the order of their rows."""

    texts: Texts

    unit = "text"
    name_column = "text"
    identity: tuple[Column, ...] = dataclasses.field(default=(), init=False)
    resumable = False

    @property
    def settings(self) -> dict[str, object]:
        """The texts, or a digest of those of a file."""
        return self.texts.settings

    def check(self, job: Job[EmbedTextsTask]) -> None:
        """Raise ``OptionError`` for options about images, and for ``resume``."""
        if not self.texts:
            raise OptionError(
                "text",
                "No text is given",
                f"give one with {option('text')}, or a file with {option('texts')}",
            )
        for group in job.options.groups:
            for name in group.given_about_images:
                raise OptionError(
                    name,
                    f"{option(name)} is about images, and none are read when texts are embedded",
                    "leave it out",
                )
        if several(job.options.model.device):
            raise OptionError(
                "device",
                f"{option('device')} {job.options.model.device}: texts are embedded on one device",
                "name one",
            )
        if job.options.output.resume:
            raise OptionError(
                "resume",
                f"{option('resume')} goes on with images; texts are embedded anew: add "
                f"{option('overwrite')} instead, or choose another output",
            )

    def plan(self, job: Job[EmbedTextsTask]) -> Plan:
        """All texts."""
        lines = self.texts.lines
        return Plan(iter(lines), lines, len(lines))

    def read(
        self,
        job: Job[EmbedTextsTask],
        plan: Plan,
        spec: PixelSpec,
        *,
        prefetch: bool,
        isolate_decoding: bool,
    ) -> AbstractContextManager[TextBatches]:
        """Give the texts in batches; nothing about them takes time or can fail."""
        size = _TEXTS_PER_IMAGE * (job.options.loader.batch_size or _IMAGE_BATCH)
        return nullcontext(TextBatches(plan.items, size))

    def fit(self, job: Job[EmbedTextsTask], batches: TextBatches, model: Blip2) -> int:
        """Raise ``OptionError`` for a text that is too long for the model."""
        model.check_texts(self.texts.lines)
        return 1

    def processor(
        self, task: EmbedTextsTask, model: Blip2, on_event: Listener
    ) -> Callable[[tuple[str, ...]], ProcessedBatch]:
        """The task."""

        def process(texts: tuple[str, ...]) -> ProcessedBatch:
            return ProcessedBatch(task.rows(model, texts), len(texts))

        return process


class TextBatches:
    """Cuts texts into batches of ``size``."""

    def __init__(self, texts: Iterator[str], size: int) -> None:
        self._texts = texts
        self._size = size

    waiting_for = None  # they are in memory

    def next_pending(self) -> Callable[[], tuple[str, ...]] | None:
        """The next batch, by one call; None at the end."""
        texts = tuple(islice(self._texts, self._size))
        return (lambda: texts) if texts else None
