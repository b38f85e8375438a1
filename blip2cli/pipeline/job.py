"""One job: what is labelled, by which task, with which options, and where its rows go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, Protocol, Self, TypeVar

from blip2cli.errors import OptionError
from blip2cli.model.checkpoint.ranker import RankerSpec
from blip2cli.model.checkpoint.resolve import local_checkpoint
from blip2cli.options import ModelOptions, RunOptions
from blip2cli.pipeline.check_model import check_model
from blip2cli.pipeline.check_paths import check_paths
from blip2cli.pipeline.events import Listener
from blip2cli.pipeline.plan import Plan
from blip2cli.pipeline.processed_batch import PendingBatch, ProcessedBatch
from blip2cli.pipeline.summary_file import check_summary
from blip2cli.sinks import Column, Sink, check_output, to_stdout
from blip2cli.tasks.base import BaseTask

if TYPE_CHECKING:
    from blip2cli.images.preprocess import PixelSpec
    from blip2cli.model.checkpoint.weight_files import Checkpoint
    from blip2cli.model.wrapper import Blip2

AnyTask = TypeVar("AnyTask", bound=BaseTask)
SinkOpener = Callable[[Sequence[Column], Mapping[str, object]], Sink]


class BatchReader(Protocol):
    """Gives the items of a plan in batches."""

    @property
    def waiting_for(self) -> str | None:
        """What the next batch waits for, for people; None: the source."""

    def next_pending(self) -> PendingBatch | None:
        """The next batch; None at the end."""


class Items(Protocol[AnyTask]):
    """What a job labels: images, or texts. All that the pipeline does not do alike for both."""

    @property
    def unit(self) -> str:
        """What is counted: ``image`` or ``text``."""

    @property
    def name_column(self) -> str:
        """The column that tells items apart."""

    @property
    def identity(self) -> tuple[Column, ...]:
        """The columns of every row that come before those of the task."""

    @property
    def resumable(self) -> bool:
        """Whether a later run can go on with the output of an unfinished one."""

    @property
    def settings(self) -> dict[str, object]:
        """What of the items shapes rows; plain JSON values."""

    def check(self, job: Job[AnyTask]) -> None:
        """Raise ``UserError`` for options that do not fit such items or their task."""

    def plan(self, job: Job[AnyTask]) -> Plan:
        """List the items. Raises ``UserError``; loads neither torch nor a model."""

    def read(
        self,
        job: Job[AnyTask],
        plan: Plan,
        spec: PixelSpec,
        *,
        prefetch: bool,
        isolate_decoding: bool,
    ) -> AbstractContextManager[Any]:
        """Give the items of ``plan`` in batches; a context manager around a ``BatchReader``.

        ``prefetch`` allows to begin before the first batch is asked for. ``isolate_decoding``
        keeps what may crash out of this process.
        """

    def fit(self, job: Job[AnyTask], batches: Any, model: Blip2) -> int:
        """Fit ``batches`` to the loaded model; returns how many of them run at once, in threads.

        Raises ``OptionError`` for items that the model cannot take.
        """

    def processor(
        self, task: AnyTask, model: Blip2, on_event: Listener
    ) -> Callable[[Any], ProcessedBatch]:
        """What makes rows of a loaded batch."""


@dataclass(frozen=True)
class Job(Generic[AnyTask]):
    """What a run is given; ``run(job, on_event)`` does it, a dry run ends with its ``plan``.

    ``sink`` opens the place of the rows; None: by the output's suffix, or ``stdout``. ``load``
    gives the model, one that is in memory for example; None: it is loaded from ``checkpoint``,
    which ``check`` and ``run`` find, once; so is ``ranker``, a model that is loaded beside it for
    tasks that rank. With ``count_all`` a large source is counted in the background while the run
    goes, so that ``Progress.total`` becomes known.
    """

    items: Items[AnyTask]
    task: AnyTask
    options: RunOptions
    sink: SinkOpener | None = None
    stdin: BinaryIO | None = None  # the paths of the source ``-``
    stdout: BinaryIO | None = None  # None: that of the process
    load: Callable[[ModelOptions], Blip2] | None = None
    checkpoint: Checkpoint | None = None
    ranker: RankerSpec | None = None
    count_all: bool = False

    @property
    def to_file(self) -> bool:
        """Whether rows go to a file, which one run at a time may write."""
        return self.sink is None and not to_stdout(self.options.output)

    def check(self) -> Self:
        """Raise ``UserError`` for what is wrong with the options; touch nothing.

        Returns the job with its checkpoints, where those are directories or embedded models. What
        the hub has is only fetched when the items are known to be there.
        """
        checkpoint = self.checkpoint or local_checkpoint(self.options.model)
        ranker = self.ranker and self.ranker.local(self.options.model)
        job = replace(self, checkpoint=checkpoint, ranker=ranker)
        if checkpoint is not None:
            check_model(job.task, self.options.model, checkpoint, ranker)
        self.items.check(job)
        check_paths(job)
        check_output(self.options.output)
        check_summary(self.options.output.summary, self.options.output.out)
        return job._with_columns()

    def plan(self) -> Plan:
        """List what is to be done. Raises ``UserError``; loads neither torch nor a model."""
        try:
            return self.items.plan(self)
        except OptionError as error:
            if (used := getattr(self.task, "columns_used", None)) and error.field == "keep":
                from blip2cli.tasks.column_texts import blamed

                raise blamed(error, used) from None
            raise

    def _with_columns(self) -> Self:
        """The job with the columns that texts of its task hold carried into the rows."""
        used = getattr(self.task, "columns_used", None)
        if not used:
            return self
        source = self.options.source
        keep = (*source.keep, *(name for name in used if name not in source.keep))
        from blip2cli.tasks.column_texts import check_columns

        check_columns(used, keep)
        options = replace(self.options, source=replace(source, keep=keep))
        task: Any = self.task
        return replace(self, task=replace(task, carried=keep), options=options)
