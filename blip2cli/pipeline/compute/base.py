"""The protocol of whoever computes the rows of a run, and what it says of the loaded model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources.base import ImageRef

if TYPE_CHECKING:
    from blip2cli.images.batches import BatchCutter
    from blip2cli.model.wrapper import Blip2
    from blip2cli.pipeline.stats import Stage
    from blip2cli.sources.readers.stdin import PathStream
    from blip2cli.tasks.base import BaseTask


NEXT_IMAGE = "the next image of the source"  # what a run waits for that lists


@dataclass(frozen=True)
class Ready:
    """What a loaded model is; it can be pickled."""

    task: Any  # the job's, fitted to the model
    name: str
    device: str
    dtype: str  # the precision, without "torch."
    reason: str  # why this device and precision
    remarks: tuple[str, ...] = ()  # about the model's files
    # Torch's threads for one operation, where they decide a row's last bits; None: they do not.
    threads: int | None = None
    batch_size: int = 0  # images; 0: the reader of items knows it
    imported: float = 0.0  # seconds that importing torch took


def describe(model: Blip2, task: BaseTask, batch_size: int = 0, imported: float = 0.0) -> Ready:
    """What ``model`` is, with ``task`` fitted to it. Raises ``OptionError`` where that fails."""
    from blip2cli.model.placement.single_thread import deciding_threads

    return Ready(
        task.fit(model),
        model.name,
        str(model.device),
        str(model.dtype).removeprefix("torch."),
        model.reason,
        tuple(model.model.remarks),
        deciding_threads(model),
        batch_size,
        imported,
    )


class Compute(AbstractContextManager[Any], Protocol):
    """Makes rows of the items of a plan, a batch at a time, in order.

    ``start``, then ``load``, then batches: ``next_batch`` reads one, ``put`` has it worked on, and
    ``take`` gives the oldest one back. Leaving the context ends everything that was started; what
    is under way then is dropped.
    """

    def start(self) -> None:
        """Begin to read items, and whatever else goes on while the caller does something."""

    def load(self) -> Ready:
        """Wait until the model is loaded. Raises ``UserError`` where it cannot be."""

    def next_batch(self) -> Any | None:
        """The next batch of items, to be ``put``; None at the end. Raises what the source raises.

        It may be interrupted: no work is lost then.
        """

    def put(self, batch: Any, /) -> None:
        """Have a batch worked on."""

    def waiting_for(self, stage: Stage) -> str:
        """What a run waits for that reads or computes, for people; called in any thread.

        It looks at what other threads change meanwhile, and may raise LookupError or RuntimeError.
        """

    def take(self, wait: bool, /) -> ProcessedBatch | None:
        """The oldest batch; None where it is not due yet, or none is under way.

        It is waited for with ``wait``, and where no further batch could be worked on. Raises what
        went wrong with it.
        """


def next_refs(
    cutter: BatchCutter, stdin: PathStream | None, wait: bool
) -> Sequence[ImageRef] | None:
    """A batch of references, None at their end. Raises what the source raises.

    Of paths on ``stdin`` a batch is those that are there; none, where none are, but for ``wait``.
    """
    refs: Sequence[ImageRef] | None
    if stdin is None:
        refs = next(cutter, None)
    else:
        refs = _refs_there(cutter, stdin, wait)
    cutter.pending.clear()
    if refs is None and cutter.error is not None:
        raise cutter.error
    return refs


def _refs_there(cutter: BatchCutter, stdin: PathStream, wait: bool) -> list[ImageRef] | None:
    refs: list[ImageRef] = []
    size, cutter.size = cutter.size, 1
    try:
        while len(refs) < size and (stdin.comes() or (wait and not refs)):
            one = next(cutter, None)
            if one is None:
                return refs or None
            refs += one
        return refs
    finally:
        cutter.size = size
