"""The pipeline: items → batches → task → sink, one batch at a time.

Everything that is cheap to check is checked first. Torch is imported only once the model is needed,
so a mistake in the options is answered at once, and a run that finds nothing left to do never loads
it.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from blip2cli import exit_codes
from blip2cli.model.checkpoint.resolve import resolve_model
from blip2cli.pipeline.check_model import check_model
from blip2cli.pipeline.compute.base import Compute
from blip2cli.pipeline.compute.choose import who_computes
from blip2cli.pipeline.events import (
    Failed,
    Finished,
    Listener,
    ModelReady,
    OldFailures,
    Progress,
    Remark,
    Started,
    Summary,
    TookOver,
)
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.output import Output
from blip2cli.pipeline.plan import Plan
from blip2cli.pipeline.settings import settings_now, start_settings
from blip2cli.pipeline.signals import Interrupted, Interrupts
from blip2cli.pipeline.stall_watch import StallWatch
from blip2cli.pipeline.stats import RunStats
from blip2cli.pipeline.stop_conditions import check_error_limit
from blip2cli.pipeline.summary_file import write_summary
from blip2cli.pipeline.unchanged import note_finished
from blip2cli.sinks import lock_of, old_failure_list
from blip2cli.system.garbage import collect_from_now_on


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


@contextlib.contextmanager
def _locked(job: Job[Any], on_event: Listener) -> Iterator[bool]:
    """Hold the lock of the output; whether it was taken over from a run that was killed."""
    if not job.to_file:
        yield False
        return
    with lock_of(job.options.output.out or "") as lock:
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
    watch: StallWatch = field(default_factory=StallWatch)
    finished: bool = False  # nothing is left to do

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
                note_finished(self.job, self.plan, self.stats)
        self.finished = True

    def work(self) -> None:
        """Load the model, and run batches until the items end, the time is up or a signal comes.

        Raises ``RunError`` when too many items fail.
        """
        job, listing = self._with_checkpoint(), self.plan.listing
        with self._who_computes(job) as compute:
            compute.start()
            # Behind the start of worker processes: a fork copies no other thread.
            settings = start_settings(job, listing, job.checkpoint)
            ready = compute.load()
            collect_from_now_on()
            self.stats.imported, self.stats.load = ready.imported, self.elapsed
            with self.interrupts.shielded():
                self.on_event(
                    ModelReady(ready.name, ready.device, ready.dtype, ready.reason, self.stats.load)
                )
                for remark in ready.remarks:
                    self.on_event(Remark(remark))
                output = Output.open(job, ready, self.plan, settings.result())
            with self.watch, output:
                self.watch.start(self.on_event, compute.waiting_for)
                self._run_batches(compute, output)
                self.watch.stage = "write"
                check_error_limit(job.options.limits.max_errors, self.stats, at_end=self.finished)
                if self.finished:
                    with self.interrupts.shielded():
                        output.close()
                        note_finished(job, self.plan, self.stats)

    def _with_checkpoint(self) -> Job[Any]:
        """The job with its checkpoints, fetched if need be. Raises ``UserError``."""
        job, model = self.job, self.job.options.model
        if job.load is not None:
            return job
        checkpoint = job.checkpoint or resolve_model(model)
        ranker = job.ranker and job.ranker.found()
        if job.checkpoint is None:
            check_model(job.task, model, checkpoint, ranker)
        return replace(job, checkpoint=checkpoint, ranker=ranker)

    def _who_computes(self, job: Job[Any]) -> Compute:
        return who_computes(job, self.plan, self.isolate_decoding, self.on_event)

    def _run_batches(self, compute: Compute, output: Output) -> None:
        limits = self.job.options.limits
        deadline = math.inf if limits.max_duration is None else self.start + limits.max_duration
        first = True
        while self.interrupts.signum is None:
            start = time.perf_counter()
            self.watch.stage = "read"
            try:
                batch = compute.next_batch()
            except Interrupted:
                break  # what is under way is finished
            except Exception:  # the source goes no further; rows of what came before it are kept
                with self.interrupts.shielded():
                    self._finish_batches(compute, output, wait=True)
                raise
            finally:
                self.stats.stages["read"] += time.perf_counter() - start
            self.finished = batch is None
            # At least one batch is done, so that a job that is run again and again gets on.
            if batch is None or (not first and time.perf_counter() >= deadline):
                break
            if first:
                self.plan.start_counting()
            first = False
            with self.interrupts.shielded():
                compute.put(batch)
                self._finish_batches(compute, output)
            if limits.max_errors is not None:
                check_error_limit(limits.max_errors, self.stats)
        with self.interrupts.shielded():
            self._finish_batches(compute, output, wait=True)

    def _finish_batches(self, compute: Compute, output: Output, wait: bool = False) -> None:
        """Take the batches that are due (with ``wait`` all), write their rows, and say so."""
        stats, watch, start = self.stats, self.watch, time.perf_counter()
        watch.stage = "model"
        while (batch := compute.take(wait)) is not None:
            taken = time.perf_counter()
            for event in batch.events:
                self.on_event(event)
            watch.stage = "write"
            output.write(batch)
            watch.moved = written = time.perf_counter()
            watch.stage = "model"
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
            abstained=stats.abstained,
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
