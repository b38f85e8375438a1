"""The pipeline of texts: task → sink, without images.

A file of texts is read whole, and rows of texts are quickly made again, so this is the short way:
rows are committed as they come, but a run that was cut off is run anew, not gone on with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from blip2cli.errors import OptionError, RunError
from blip2cli.options import LimitOptions, RunOptions, SourceOptions
from blip2cli.pipeline.events import Finished, Listener, ModelReady, Progress, Started, Summary
from blip2cli.pipeline.output import SinkOpener, check_summary, run_settings, write_summary
from blip2cli.pipeline.signals import Interrupted, Interrupts
from blip2cli.pipeline.stats import Tally
from blip2cli.sinks import Sink, check_output, open_failure_list, open_sink, to_stdout

if TYPE_CHECKING:
    from blip2cli.pipeline.model_loader import ModelLoader
    from blip2cli.tasks.embed_texts import EmbedTextsTask

UNIT = "text"
USUAL_SIZE = 16  # of a batch of images, where no size is given
# Texts taken together are so many times a batch of images: those of one length run at once, and
# among more there are more of one length.
_TIMES = 8


def check_texts(task: EmbedTextsTask, options: RunOptions) -> None:
    """Raise ``UserError`` for what is wrong with the options, before anything is touched."""
    task.check(options.model)
    for name in _about_images(options):
        raise OptionError(
            f"--{name.replace('_', '-')} is about images, and none are read when texts are "
            "embedded; leave it out."
        )
    if options.output.resumes:
        raise OptionError(
            "--resume goes on with images; texts are embedded anew: add --overwrite instead, or "
            "choose another output."
        )
    check_output(options.output)
    check_summary(options.output.summary)


def run_texts(
    task: EmbedTextsTask,
    options: RunOptions,
    model_loader: ModelLoader | None = None,
    on_event: Listener = lambda event: None,
    *,
    stdout: BinaryIO | None = None,
    sink_opener: SinkOpener | None = None,
) -> Summary:
    """Embed all texts of ``task`` and return how it went; counts are of texts.

    Parameters and errors as for ``run``. SIGINT and SIGTERM end the run after the batch in
    flight.
    """
    from blip2cli.pipeline.model_loader import load_model
    from blip2cli.pipeline.run import locked

    tally = Tally()
    began = time.perf_counter()
    check_texts(task, options)
    own = sink_opener is not None or to_stdout(options.output)
    interrupts = Interrupts()
    with contextlib.nullcontext() if own else locked(options, on_event):
        total = len(task.texts)
        on_event(Started(task.name, options.model.model, total, UNIT))
        with interrupts, contextlib.suppress(Interrupted):
            load = model_loader or (lambda chosen: load_model(chosen, task))
            model = load(options.model)
            tally.load = time.perf_counter() - began
            with interrupts.shielded():
                task = task.fit(model)
                dtype = str(model.dtype).removeprefix("torch.")
                on_event(ModelReady(model.name, str(model.device), dtype, model.reason, tally.load))
                settings = run_settings(task, options, model) | task.texts.settings
                if sink_opener is not None:
                    sink = sink_opener(task.columns, settings)
                else:
                    stream = stdout or sys.stdout.buffer
                    sink = open_sink(options.output, task.columns, settings, stream, None, ())
            with _closing(sink):
                for texts in _batches(
                    task.texts.lines, _TIMES * (options.loader.batch_size or USUAL_SIZE)
                ):
                    if interrupts.signum is not None:
                        break
                    with interrupts.shielded():
                        with tally.timing("model"):
                            rows = task.rows(model, texts)
                        with tally.timing("write"):
                            if not tally.rows:
                                # The failures of images that the output listed before.
                                open_failure_list(options.output).remove_old()
                            sink.write(rows)
                        tally.done += len(rows)
                        tally.rows += len(rows)
                        on_event(Progress(tally.done, 0, total))
                if tally.done == total:
                    with interrupts.shielded():
                        sink.close()
    seconds = time.perf_counter() - began
    summary = Summary(
        task=task.name,
        model=options.model.model,
        output=options.output.out,
        done=tally.done,
        failed=0,
        skipped=0,
        already=0,
        rows=tally.rows,
        seconds=seconds,
        load_seconds=tally.load,
        images_per_second=tally.done / max(seconds - tally.load, 1e-9),
        read_share=tally.share("read"),
        model_share=tally.share("model"),
        write_share=tally.share("write"),
        exit_code=interrupts.exit_code,
        unit=UNIT,
    )
    if options.output.summary is not None:
        write_summary(options.output.summary, summary)
    on_event(Finished(summary))
    return summary


@contextlib.contextmanager
def _closing(sink: Sink) -> Iterator[None]:
    """Keep what was finished, whatever ends the run; the first error is the one to report."""
    try:
        yield
    finally:
        with contextlib.suppress(RunError, BrokenPipeError):
            sink.commit()
        sink.abort()


def _batches(texts: tuple[str, ...], size: int) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _about_images(options: RunOptions) -> Iterator[str]:
    """The names of options that were given and are about images."""
    for given, default in (
        (options.source, SourceOptions(())),
        (options.limits, LimitOptions()),
    ):
        for field in dataclasses.fields(default):
            if getattr(given, field.name) != getattr(default, field.name):
                yield {"nul": "null", "sources": "SOURCE"}.get(field.name, field.name)
    if options.output.retry_errors:
        yield "retry_errors"
    if options.output.errors == "inline":
        yield "errors"
    if options.loader.image_timeout is not None:
        yield "image_timeout"
    if options.loader.fast_decode:
        yield "fast_decode"
    if options.model.compile:
        yield "compile"
