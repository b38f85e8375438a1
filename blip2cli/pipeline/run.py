"""The pipeline: items → batches → task → sink, one batch at a time.

Everything that is cheap to check is checked first. Torch is imported only once the model is needed,
so a mistake in the options is answered at once, and a run that finds nothing left to do never loads
it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blip2cli import exit_codes
from blip2cli.model.checkpoint.resolve import resolve
from blip2cli.pipeline.batch_threads import (
    BatchThreads,
    PendingBatch,
    ProcessedBatch,
    process_batch,
)
from blip2cli.pipeline.events import (
    Failed,
    Finished,
    Listener,
    ModelReady,
    OldFailures,
    Progress,
    Remark,
    Slower,
    Started,
    Summary,
    TookOver,
)
from blip2cli.pipeline.job import BatchReader, Job
from blip2cli.pipeline.output import Output
from blip2cli.pipeline.plan import Plan
from blip2cli.pipeline.settings import precision_before, settings_now, start_settings
from blip2cli.pipeline.signals import Interrupted, Interrupts
from blip2cli.pipeline.stats import RunStats
from blip2cli.pipeline.stop_conditions import check_error_limit
from blip2cli.pipeline.summary_file import write_summary
from blip2cli.sinks import OutputLock, old_failure_list

if TYPE_CHECKING:
    from concurrent.futures import Future

    from blip2cli.images.preprocess import PixelSpec
    from blip2cli.model.wrapper import Blip2
    from blip2cli.sinks import Settings
    from blip2cli.tasks.base import BaseTask


def run(job: Job[Any], on_event: Listener = lambda event: None) -> Summary:
    """Do the whole job and return how it went.

    SIGINT, SIGTERM and SIGHUP end the run after the batches in flight, with their rows safe. Raises
    ``UserError`` before anything is loaded when the input is wrong, ``RunError`` when the run
    cannot go on, and lets the ``BrokenPipeError`` of a closed ``stdout`` through; what was
    committed stays in every case.
    """
    start = time.perf_counter()
    job = job.check()
    output = job.options.output
    with _locked(job, on_event) as recovered:
        plan = job.plan()
        on_event(Started(job.task.name, job.options.model.model, plan.total, job.items.unit))
        if plan.resumed is not None:
            on_event(plan.resumed_event(plan.resumed))
        elif job.to_file and (old := old_failure_list(output.out or "")) is not None:
            on_event(OldFailures(os.path.relpath(old)))
        state = RunState(job, plan, on_event, start, recovered or plan.resumed is not None)
        with state.interrupts, contextlib.suppress(Interrupted):
            # Interrupted: nothing was in flight, and what is finished has been committed.
            state.work() if plan.names or plan.resumed is None else state.complete()
    summary = state.summary()
    if output.summary is not None:
        write_summary(output.summary, summary)
    on_event(Finished(summary))
    return summary


def import_model() -> type[Blip2]:
    """Import torch and what runs the model, fit for the cores there are."""
    from blip2cli.system.openmp import after_torch, before_torch

    before_torch()
    from blip2cli.model.wrapper import Blip2

    after_torch()
    return Blip2


@contextlib.contextmanager
def _locked(job: Job[Any], on_event: Listener) -> Iterator[bool]:
    """Hold the lock of the output; whether it was taken over from a run that was killed."""
    if not job.to_file:
        yield False
        return
    with OutputLock(job.options.output.out or "") as lock:
        if lock.taken_from is not None:
            on_event(TookOver(lock.taken_from))
        lock.sweep()
        yield lock.taken_from is not None


@dataclass
class RunState:
    """A run under way: its job, and how far it is."""

    job: Job[Any]
    plan: Plan
    on_event: Listener
    start: float  # on the clock of ``time.perf_counter``
    # What ended the run before may have been an image that crashes the decoder.
    isolate_decoding: bool
    interrupts: Interrupts = field(default_factory=Interrupts)
    stats: RunStats = field(default_factory=RunStats)
    finished: bool = False  # nothing is left to do
    reported_slower: bool = False

    def __post_init__(self) -> None:
        self.stats.listed = self.elapsed

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    def complete(self) -> None:
        """Nothing is left to do: bring what an earlier run left into its final form."""
        assert self.plan.resumed is not None
        with self.interrupts.shielded():
            self.plan.resumed.complete()
            if self.job.to_file:
                now = settings_now(self.job, self.plan.listing, self.job.checkpoint)
                self.plan.resumed.adopt(now, finished=True)
        self.finished = True

    def work(self) -> None:
        """Load the model, and run batches until the items end, the time is up or a signal comes.

        Raises ``RunError`` when too many items fail.
        """
        job = self.job
        with contextlib.ExitStack() as stack:
            model, task, batches, count, settings = self._load(stack)
            with self.interrupts.shielded():
                output = Output.open(job, task, model, self.plan, settings.result())
            stack.enter_context(output)
            processor = job.items.processor(task, model, self.on_event)
            process = functools.partial(process_batch, processor)
            threads = stack.enter_context(BatchThreads(process, count))
            self._run_batches(batches, threads, output, model)
            check_error_limit(job.options.limits.max_errors, self.stats, at_end=self.finished)
            if self.finished:
                with self.interrupts.shielded():
                    output.close()

    def _load(
        self, stack: contextlib.ExitStack
    ) -> tuple[Blip2, BaseTask, BatchReader, int, Future[Settings]]:
        """Load the model, and start to read items as early as that goes; fit the task.

        Leaving ``stack`` ends the reading. Returns the model, the fitted task, the batches, how
        many of them run at once, and what is known of the files.
        """
        job, listing = self.job, self.plan.listing
        chosen = precision_before(job.options.model, self.plan.resumed)
        if job.load is not None:
            model = job.load(chosen)
            batches = stack.enter_context(self._read(model.spec, prefetch=False))
            settings = start_settings(job, listing, job.checkpoint)
        else:
            checkpoint = job.checkpoint
            if checkpoint is None:
                checkpoint = resolve(chosen.model, chosen.revision)
                job.task.check(chosen.model, checkpoint.family)
            batches = stack.enter_context(self._read(checkpoint.pixel_spec, prefetch=True))
            # Behind the start of worker processes: a fork copies no other thread.
            settings = start_settings(job, listing, checkpoint)
            start = self.elapsed
            kind = import_model()
            self.stats.imported = self.elapsed - start
            model = kind.load(chosen, checkpoint)
        count = job.items.fit(job, batches, model)
        self.stats.load = self.elapsed
        with self.interrupts.shielded():
            task = job.task.fit(model)
            dtype = str(model.dtype).removeprefix("torch.")
            device = str(model.device)
            self.on_event(ModelReady(model.name, device, dtype, model.reason, self.stats.load))
            for remark in model.model.remarks:
                self.on_event(Remark(remark))
        return model, task, batches, count, settings

    def _read(self, spec: PixelSpec, prefetch: bool) -> AbstractContextManager[BatchReader]:
        isolate = self.isolate_decoding
        return self.job.items.read(
            self.job, self.plan, spec, prefetch=prefetch, isolate_decoding=isolate
        )

    def _run_batches(
        self,
        batches: BatchReader,
        threads: BatchThreads[PendingBatch, ProcessedBatch],
        output: Output,
        model: Blip2,
    ) -> None:
        limits = self.job.options.limits
        deadline = math.inf if limits.max_duration is None else self.start + limits.max_duration
        first = True
        while self.interrupts.signum is None:
            start = time.perf_counter()
            try:
                pending = batches.next_pending()
            except Interrupted:
                break  # what is under way is finished
            finally:
                self.stats.stages["read"] += time.perf_counter() - start
            self.finished = pending is None
            # At least one batch is done, so that a job that is run again and again gets on.
            if pending is None or (not first and time.perf_counter() >= deadline):
                break
            if first:
                self.plan.start_counting()
            first = False
            with self.interrupts.shielded():
                threads.put(pending)
                self._finish_batches(threads, output)
                if model.trouble is not None and not self.reported_slower:
                    self.reported_slower = True
                    self.on_event(Slower(model.trouble))
            if limits.max_errors is not None:
                check_error_limit(limits.max_errors, self.stats)
        with self.interrupts.shielded():
            self._finish_batches(threads, output, wait=True)

    def _finish_batches(
        self,
        threads: BatchThreads[PendingBatch, ProcessedBatch],
        output: Output,
        wait: bool = False,
    ) -> None:
        """Take the batches that are due (with ``wait`` all), write their rows, and say so."""
        stats, start = self.stats, time.perf_counter()
        while (batch := threads.take(wait)) is not None:
            taken = time.perf_counter()
            output.write(batch)
            written = time.perf_counter()
            stats.first = stats.first or written - self.start
            stats.add(batch, taken - start, written - taken)
            for item in batch.images:
                if item.error is not None:
                    self.on_event(Failed(item.file_name, item.error.error_type, item.error.problem))
            self.on_event(Progress(stats.done, stats.failed, self.plan.total))
            start = time.perf_counter()

    def summary(self) -> Summary:
        """How the run went, as of now."""
        job, plan, stats = self.job, self.plan, self.stats
        seconds = self.elapsed
        return Summary(
            task=job.task.name,
            model=job.options.model.model,
            output=job.options.output.out,
            done=stats.done,
            failed=stats.failed,
            skipped=plan.passed_over.skipped,
            already=plan.passed_over.already,
            other_files=dict(plan.passed_over.others),
            rows=stats.rows,
            flagged=stats.flagged,
            retried=stats.retried,
            seconds=seconds,
            load_seconds=stats.load,
            images_per_second=stats.done / max(seconds - stats.load, 1e-9),
            read_share=stats.share("read"),
            model_share=stats.share("model"),
            write_share=stats.share("write"),
            exit_code=self._exit_code(),
            unit=job.items.unit,
            list_seconds=stats.listed,
            import_seconds=stats.imported,
            first_seconds=stats.first,
        )

    def _exit_code(self) -> int:
        if self.interrupts.exit_code:
            return self.interrupts.exit_code
        if not self.finished:
            return exit_codes.MORE_TO_DO
        failed = self.stats.failed or self.plan.failed_before
        return exit_codes.FAILED_IMAGES if failed else exit_codes.SUCCESS
