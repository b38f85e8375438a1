"""A loaded model and what all tasks of the Python API do with it: batches in, rows out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from blip2cli.api.arguments import Errors, is_inline
from blip2cli.api.batches import count_of, in_notebook, loaded_batches, progress_bar, references
from blip2cli.api.rows import AnyRow, Rows, with_failed
from blip2cli.errors import ImageError, OptionError, RunError, option
from blip2cli.model.checkpoint.ranker import RankerSpec
from blip2cli.options import ModelOptions
from blip2cli.tasks.base import Task

if TYPE_CHECKING:
    from blip2cli.api.batches import Picture
    from blip2cli.images.batch_stream import LoadedBatch
    from blip2cli.model.wrapper import Blip2 as Model
    from blip2cli.sources.base import ImageRef
    from blip2cli.tasks.base import Row


_forked = False  # from a process that may have computed


def _note_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_note_fork)


def before_loading() -> None:
    """Make torch fit for a model in this process.

    One that was forked, as those of ``datasets`` are, has none of the threads that OpenMP started
    in the other, and an operation of several threads would wait for them for ever.
    """
    if _forked:
        import torch

        torch.set_num_threads(1)


class LoadedModel:
    """A model in memory, and the number of images that go through it together."""

    def __init__(self, model: Model, batch_size: int | None = None) -> None:
        if batch_size is None:
            from blip2cli.model.placement.batch_size import auto_batch_size

            batch_size = auto_batch_size(model)
        if batch_size < 1:
            raise OptionError(
                "batch_size", f"{option('batch_size')} takes a positive number, not {batch_size}"
            )
        self.model = model
        self.batch_size = batch_size
        self._options: ModelOptions | None = None  # it can be loaded with
        self._ranker: RankerSpec | None = None  # likewise
        self._process = os.getpid()
        self._computing = threading.Lock()

    def __repr__(self) -> str:
        model, dtype = self.model, str(self.model.dtype).removeprefix("torch.")
        return f"<Blip2 {model.name} on {model.device} in {dtype}, batch size {self.batch_size}>"

    def batches(self, images: Picture | Iterable[Picture]) -> Iterator[list[ImageRef]]:
        """The images a batch at a time, each to be given to ``caption``, ``ask`` or ``embed``.

        For streams with more rows than memory holds: neither images nor rows are collected, and
        images without a file are numbered through.
        """
        refs = references(images)
        while some := list(islice(refs, self.batch_size)):
            yield some

    def _rows(
        self,
        kind: type[AnyRow],
        task: Task,
        images: Picture | Iterable[Picture],
        errors: Errors,
        progress: bool,
    ) -> Rows[AnyRow]:
        inline = is_inline(errors)
        self._check_process()
        task = task.fit(self.model)
        rows = Rows(kind, task.columns, inline)
        shows = in_notebook()
        refs, total = references(images), count_of(images)
        for batch, made in self._computed(task, refs, total, progress, inline):
            rows += with_failed(task, batch, made) if inline else made
            if shows:
                rows.add_thumbnails(batch)
        return rows

    def _computed(
        self,
        task: Task,
        refs: Iterator[ImageRef],
        total: int | None,
        progress: bool,
        inline: bool = False,
    ) -> Iterator[tuple[LoadedBatch, list[Row]]]:
        """Batches with their rows. Raises ImageError for an image that failed, unless ``inline``.

        Images are read outside the lock, so that those of one thread are while another computes.
        """
        with progress_bar(progress, total) as advance:
            for batch in loaded_batches(refs, self.model.spec, self.batch_size):
                for item in batch.items:
                    if (error := item.error) is not None and not inline:
                        raise ImageError(error.error_type, f"{item.file_name}: {error}") from error
                with self._computing:
                    rows = [dict(row) for row in task.rows(self.model, batch)]
                yield batch, rows
                advance(len(batch.items))

    def _check_process(self) -> None:
        """Raise RunError in a process that was forked: it has none of the threads the model runs
        in, and would wait for them for ever."""
        if os.getpid() != self._process:
            raise RunError(
                None,
                "This model was loaded in the process that this one was forked from",
                "load it in each process, or start processes with multiprocessing's spawn",
            )
