"""The pipeline: source → loader → task → sink, one batch at a time.

``prepare`` checks everything that is cheap to check and loads nothing heavy; ``run`` loads the
model and works. Torch is imported only once the model is needed, so a mistake in the options is
answered at once, and a run that finds nothing left to do never loads it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO

from blip2cli import exit_codes
from blip2cli.errors import ModelError
from blip2cli.options import RunOptions
from blip2cli.pipeline import events
from blip2cli.pipeline.batch_threads import DECODING, Lanes
from blip2cli.pipeline.events import (
    Failed,
    Finished,
    Listener,
    ModelReady,
    Progress,
    Started,
    Summary,
)
from blip2cli.pipeline.labelling import Labelled, label
from blip2cli.pipeline.model_loader import ModelLoader, find_model, import_model
from blip2cli.pipeline.out_of_memory import WithinMemory
from blip2cli.pipeline.output import Output, SinkOpener, write_summary
from blip2cli.pipeline.plan import Plan, Total, check_options, prepare, resumed
from blip2cli.pipeline.signals import Interrupted, Interrupts
from blip2cli.pipeline.stats import Tally
from blip2cli.pipeline.stop_conditions import ErrorLimit
from blip2cli.sinks import OutputLock, to_stdout

if TYPE_CHECKING:
    from blip2cli.images.loader import BatchStream, LoadedBatch
    from blip2cli.images.preprocess import PixelSpec
    from blip2cli.model.wrapper import Blip2
    from blip2cli.tasks.base import Task


def run(
    task: Task,
    options: RunOptions,
    model_loader: ModelLoader | None = None,
    on_event: Listener = lambda event: None,
    *,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
    sink_opener: SinkOpener | None = None,
    count: bool = False,
) -> Summary:
    """Do the whole task and return how it went.

    ``sink_opener`` takes the place of the sinks chosen by the output's suffix. With ``count`` a
    large source is counted in the background while the run goes, so that ``Progress.total``
    becomes known. SIGINT and SIGTERM end the run after the batch in flight, with its rows safe.

    Raises ``UserError`` before anything is loaded when the input is wrong, ``RunError`` when the
    run cannot go on, and lets the ``BrokenPipeError`` of a closed ``stdout`` through; what was
    committed stays in every case.
    """
    began = time.perf_counter()
    check_options(task, options)
    own = sink_opener is not None or to_stdout(options.output)
    with contextlib.nullcontext(False) if own else locked(options, on_event) as taken_over:
        plan = prepare(task, options, stdin)
        on_event(Started(task.name, options.model.model, plan.total))
        if plan.resumed is not None:
            on_event(resumed(plan, options.output.retry_errors))
        # What ended the run before may have been an image that crashes the decoder.
        wary = taken_over or plan.resumed is not None
        job = _Job(task, options, plan, on_event, began, wary)
        job.tally.listed = job.elapsed
        with Interrupts() as job.interrupts, contextlib.suppress(Interrupted):
            # Interrupted: nothing was in flight, and what is finished has been committed.
            if plan.first:
                with contextlib.ExitStack() as reading:
                    model, batches = job.load(model_loader, reading)
                    with job.interrupts.shielded():
                        out = Output.open(
                            job.task, model, options, sink_opener, stdout, plan.resumed
                        )
                    total = Total(plan, options.source if count and task.only is None else None)
                    with out:
                        job.work(model, batches, out, total)
            else:
                job.complete()
    summary = job.summary()
    if options.output.summary is not None:
        write_summary(options.output.summary, summary)
    on_event(Finished(summary))
    return summary


@contextlib.contextmanager
def locked(options: RunOptions, on_event: Listener) -> Iterator[bool]:
    """Hold the lock of the output; whether it was taken over from a run that was killed."""
    with OutputLock(options.output.out or "") as lock:
        if lock.taken_from is not None:
            on_event(events.TookOver(lock.taken_from))
        lock.sweep()
        yield lock.taken_from is not None


@dataclass
class _Job:
    """One run under way: what it has to do, and how far it is."""

    task: Task
    options: RunOptions
    plan: Plan
    on_event: Listener
    began: float  # on the clock of ``time.perf_counter``
    wary: bool  # images are decoded in another process
    interrupts: Interrupts = field(default_factory=Interrupts)
    tally: Tally = field(default_factory=Tally)
    more: bool = True  # there is more to do than was done
    told: bool = False  # that it runs slower than it might

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.began

    def load(
        self, model_loader: ModelLoader | None, reading: contextlib.ExitStack
    ) -> tuple[Blip2, BatchStream]:
        """Load the model, and begin to read images as early as that goes; fit the task.

        Leaving ``reading`` ends the reading of images.
        """
        if model_loader is not None:
            model = model_loader(self.options.model)
            batches = reading.enter_context(self._batches(model.spec))
        else:
            spec = find_model(self.options.model, self.task)
            # Paths on stdin come when they come, and who gives them may wait for the rows.
            ahead = "-" not in self.options.source.sources
            batches = reading.enter_context(self._batches(spec, ahead))
            begun = self.elapsed
            kind = import_model()
            self.tally.imported = self.elapsed - begun
            model = kind.load(self.options.model)
            if model.spec != spec:
                name = self.options.model.model
                raise ModelError(f"The files of {name} changed while it was loaded; run it again.")
        if self.options.loader.batch_size is None:
            from blip2cli.model.placement.batch_size import auto_batch_size

            batches.set_batch_size(auto_batch_size(model))
        self.tally.load = self.elapsed
        with self.interrupts.shielded():
            self.task = self.task.fit(model)
            dtype = str(model.dtype).removeprefix("torch.")
            device = str(model.device)
            self.on_event(ModelReady(model.name, device, dtype, model.reason, self.tally.load))
        return model, batches

    def _batches(self, spec: PixelSpec, ahead: bool = False) -> BatchStream:
        from blip2cli.images.loader import load_batches

        options = self.options.loader
        if options.workers is None and self.wary:
            options, ahead = replace(options, workers=1), False
        return load_batches(self.plan.refs, spec, options, ahead)

    def work(self, model: Blip2, batches: BatchStream, out: Output, total: Total) -> None:
        """Take batches until the source ends, the time is up or a signal asks to stop.

        Raises ``RunError`` when too many images fail.
        """
        limits = self.options.limits
        errors = ErrorLimit(limits.max_errors)
        allowed = math.inf if limits.max_duration is None else limits.max_duration
        within = WithinMemory(self.task, self.on_event)
        work = functools.partial(label, within, model)
        count = self._lanes(model)
        if 1 < count <= DECODING:
            batches.share_decoding()
        with Lanes(work, count) as lanes:
            while self.interrupts.signum is None:
                try:
                    with self.tally.timing("read"):
                        begun = batches.next_pending()
                except Interrupted:
                    break  # what is under way is finished
                self.more = begun is not None
                # At least one batch is done, so that a job that is run again and again gets on.
                first = not self.tally.seen and not lanes.pending
                if begun is None or (self.elapsed >= allowed and not first):
                    break
                total.begin()
                with self.interrupts.shielded():
                    lanes.put(begun)
                    while lanes.full or lanes.ready:
                        self._do(lanes, out, total)
                    self._tell(model)
                errors.check(self.tally)
            with self.interrupts.shielded():
                while lanes.pending:
                    self._do(lanes, out, total)
        errors.check(self.tally, at_end=not self.more)
        if not self.more:
            with self.interrupts.shielded():
                out.close()

    def _tell(self, model: Blip2) -> None:
        trouble = model.trouble
        if trouble is not None and not self.told:
            self.told = True
            self.on_event(events.Slower(trouble))

    def _lanes(self, model: Blip2) -> int:
        from blip2cli.model.placement.batch_size import batch_threads

        # Who gives paths on stdin may wait for the rows of one before giving the next.
        return 1 if "-" in self.options.source.sources else batch_threads(model)

    def _do(
        self, lanes: Lanes[Callable[[], LoadedBatch], Labelled], out: Output, total: Total
    ) -> None:
        began = time.perf_counter()
        done = lanes.take()
        self.tally.waited(time.perf_counter() - began, done.decoding)
        with self.tally.timing("write"):
            out.write(done.rows, done.batch)
        self.tally.first = self.tally.first or self.elapsed
        self.tally.count(done.rows)
        for item in done.batch.items:
            if item.error is None:
                self.tally.done += 1
            else:
                self.tally.failed += 1
                self.on_event(Failed(item.file_name, item.error.error_type, str(item.error)))
        self.on_event(Progress(self.tally.done, self.tally.failed, total.known))

    def complete(self) -> None:
        """Nothing is left to do: bring what an earlier run left into its final form."""
        assert self.plan.resumed is not None  # else ``prepare`` refuses a source without images
        with self.interrupts.shielded():
            self.plan.resumed.complete()
        self.more = False

    def summary(self) -> Summary:
        """How the run went, as of now."""
        tally = self.tally
        seconds = self.elapsed
        working = max(seconds - tally.load, 1e-9)
        return Summary(
            task=self.task.name,
            model=self.options.model.model,
            output=self.options.output.out,
            done=tally.done,
            failed=tally.failed,
            skipped=self.plan.skipped,
            already=self.plan.already,
            rows=tally.rows,
            flagged=tally.flagged,
            retried=tally.retried,
            seconds=seconds,
            load_seconds=tally.load,
            images_per_second=tally.done / working,
            read_share=tally.share("read"),
            model_share=tally.share("model"),
            write_share=tally.share("write"),
            exit_code=self._exit_code(),
            list_seconds=tally.listed,
            import_seconds=tally.imported,
            first_seconds=tally.first,
        )

    def _exit_code(self) -> int:
        if self.interrupts.exit_code:
            return self.interrupts.exit_code
        if self.more:
            return exit_codes.MORE_TO_DO
        failed = self.tally.failed or self.plan.failed_before
        return exit_codes.FAILED_IMAGES if failed else exit_codes.SUCCESS
