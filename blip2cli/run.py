"""The pipeline: source → loader → task → sink, one batch at a time.

``prepare`` checks everything that is cheap to check and loads nothing heavy; ``run`` loads the
model and works. Torch is imported only once the model is needed, so a mistake in the options is
answered at once.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, BinaryIO, TextIO

from blip2cli.errors import OptionError
from blip2cli.events import Failed, Finished, Listener, ModelReady, Progress, Started, Summary
from blip2cli.options import ModelOptions, RunOptions, SourceOptions
from blip2cli.output import Output, SinkOpener, check_kept, check_summary, write_summary
from blip2cli.signals import Interrupted, Interrupts
from blip2cli.sinks import check_output
from blip2cli.sources import ImageRef, open_sources
from blip2cli.tally import Tally
from blip2cli.tasks.questions import check_names

if TYPE_CHECKING:
    from blip2cli.images.loader import LoadedBatch
    from blip2cli.model.wrapper import Blip2
    from blip2cli.tasks.base import Task

ModelLoader = Callable[[ModelOptions], "Blip2"]

EXIT_FAILED_IMAGES = 3
_PEEKED = 256  # images listed ahead: the number of a small source is known before it starts


def load_model(options: ModelOptions) -> Blip2:
    """The usual ``model_loader``: import torch and transformers, then read the weights."""
    from blip2cli.model.resolve import resolve

    resolve(options.model, options.revision)  # a wrong name is answered before torch is imported
    from blip2cli.model.wrapper import Blip2

    return Blip2.load(options)


@dataclass
class Plan:
    """A source that was looked at: it is not empty, and its names fit the task.

    ``refs`` yields every image the task wants, once; ``first`` are the earliest of them.
    """

    first: tuple[ImageRef, ...]
    refs: Iterator[ImageRef]
    total: int | None  # None: there are more than were listed ahead
    selected: _Selected

    @property
    def skipped(self) -> int:
        """Images passed over so far because the task is not about them."""
        return self.selected.skipped


def prepare(task: Task, options: RunOptions, stdin: BinaryIO | None = None) -> Plan:
    """Check options, output and source; raise ``UserError`` with the first thing that is wrong.

    Loads neither torch nor the model.
    """
    task.check(options.model.model)
    check_output(options.output)
    check_summary(options.output.summary)
    check_kept(task, options)
    source = options.source
    if task.only is not None:
        # The listing is read twice, so paths that come through stdin have to be kept.
        kept = stdin.read() if stdin is not None and "-" in source.sources else b""
        everything = replace(source, include=(), exclude=(), limit=None)
        check_names(
            task.only, (ref.file_name for ref in open_sources(everything, io.BytesIO(kept)))
        )
        stdin = io.BytesIO(kept)
    selected = _Selected(open_sources(source, stdin), task)
    first = tuple(islice(selected, _PEEKED))
    if not first:
        raise OptionError(
            "None of the images that --limit, --include and --exclude leave has a question in "
            "--questions; loosen them."
        )
    total = len(first) if len(first) < _PEEKED else None
    return Plan(first, chain(first, selected), total, selected)


def run(
    task: Task,
    options: RunOptions,
    model_loader: ModelLoader = load_model,
    on_event: Listener = lambda event: None,
    *,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
    stderr: TextIO | None = None,
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
    plan = prepare(task, options, stdin)
    on_event(Started(task.name, options.model.model, plan.total))
    tally = Tally()
    with Interrupts() as interrupts:
        try:
            model = model_loader(options.model)
            tally.load = time.perf_counter() - began
            task = task.fit(model)
            with interrupts.shielded():
                on_event(_ready(model, tally.load))
                out = Output.open(task, model, options, sink_opener, stdout, stderr)
            total = _Total(plan.total, options.source if count and task.only is None else None)
            with out:
                _work(task, model, plan, options, out, tally, interrupts, total, on_event)
                with interrupts.shielded():
                    if interrupts.signum is None:
                        out.close()
        except Interrupted:
            pass  # nothing was in flight, and what is finished has been committed
    summary = _summary(task, options, plan, tally, time.perf_counter() - began, interrupts)
    if options.output.summary is not None:
        write_summary(options.output.summary, summary)
    on_event(Finished(summary))
    return summary


def _work(
    task: Task,
    model: Blip2,
    plan: Plan,
    options: RunOptions,
    out: Output,
    tally: Tally,
    interrupts: Interrupts,
    total: _Total,
    on_event: Listener,
) -> None:
    """Take batches until the source ends or a signal asks to stop."""
    from blip2cli.images.loader import load_batches

    with load_batches(plan.refs, model.spec, options.loader) as batches:
        while interrupts.signum is None:
            with tally.timing("read"):
                batch = next(batches, None)
            if batch is None:
                return
            total.begin()
            with interrupts.shielded():
                with tally.timing("model"):
                    rows = task.rows(model, batch)
                with tally.timing("write"):
                    out.write(rows, batch)
                tally.rows += len(rows)
                _count(batch, tally, on_event)
                on_event(Progress(tally.done, tally.failed, total.known))


def _count(batch: LoadedBatch, tally: Tally, on_event: Listener) -> None:
    for item in batch.items:
        if item.error is None:
            tally.done += 1
        else:
            tally.failed += 1
            on_event(Failed(item.file_name, item.error.error_type, str(item.error)))


class _Selected:
    """The images of a source that a task is about, counting the others."""

    def __init__(self, refs: Iterator[ImageRef], task: Task) -> None:
        self._refs = refs
        self._only = task.only
        self.skipped = 0

    def __iter__(self) -> Iterator[ImageRef]:
        return self

    def __next__(self) -> ImageRef:
        for ref in self._refs:
            if self._only is None or ref.file_name in self._only:
                return ref
            self.skipped += 1
        raise StopIteration


class _Total:
    """How many images there are, counted by a thread of its own where ``source`` is given.

    Listing is quick beside the model, but not so quick that a run should wait for it.
    """

    def __init__(self, known: int | None, source: SourceOptions | None) -> None:
        self.known = known
        self._source = source if known is None else None

    def begin(self) -> None:
        """Start counting, once; called when the first batch is there, not to compete with it."""
        source, self._source = self._source, None
        if source is not None and "-" not in source.sources:
            threading.Thread(target=self._count, args=(source,), daemon=True).start()

    def _count(self, source: SourceOptions) -> None:
        self.known = sum(1 for _ in open_sources(source))


def _ready(model: Blip2, seconds: float) -> ModelReady:
    dtype = str(model.dtype).removeprefix("torch.")
    return ModelReady(model.name, str(model.device), dtype, model.reason, seconds)


def _summary(
    task: Task,
    options: RunOptions,
    plan: Plan,
    tally: Tally,
    seconds: float,
    interrupts: Interrupts,
) -> Summary:
    working = max(seconds - tally.load, 1e-9)
    return Summary(
        task=task.name,
        model=options.model.model,
        output=options.output.out,
        done=tally.done,
        failed=tally.failed,
        skipped=plan.skipped,
        rows=tally.rows,
        seconds=seconds,
        load_seconds=tally.load,
        images_per_second=tally.done / working,
        read_share=tally.share("read"),
        model_share=tally.share("model"),
        write_share=tally.share("write"),
        exit_code=interrupts.exit_code or (EXIT_FAILED_IMAGES if tally.failed else 0),
    )
