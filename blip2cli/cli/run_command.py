"""What every command does once its task and options are built: run it and report."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

from blip2cli import exit_codes
from blip2cli.cli.terminal.console import EMBEDDED, Console
from blip2cli.cli.terminal.log_json import JsonLog

if TYPE_CHECKING:
    from blip2cli.options import ReportOptions, RunOptions
    from blip2cli.pipeline.events import Listener, Summary
    from blip2cli.pipeline.output import SinkOpener
    from blip2cli.sinks.base import Column, Sink
    from blip2cli.tasks import EmbedTextsTask, Task


def run_command(task: Task | EmbedTextsTask, options: RunOptions, report: ReportOptions) -> int:
    """Run the task, print what is to be said, and return the exit code."""
    return _dry_run(task, options) if report.dry_run else _run(task, options, report)


def _run(task: Task | EmbedTextsTask, options: RunOptions, report: ReportOptions) -> int:
    from blip2cli.sinks.paths import to_stdout
    from blip2cli.system import library_logging
    from blip2cli.tasks import EmbedTextsTask

    library_logging.show_library_messages(report.verbose >= 2)
    if report.quiet or report.log_json:
        library_logging.show_downloads(False)
    beside = options.output.errors == "file"
    to_file = not to_stdout(options.output)
    about_images = not isinstance(task, EmbedTextsTask)
    console = Console(
        sys.stderr,
        quiet=report.quiet,
        verbosity=report.verbose,
        list_failures=beside and not to_file,
        errors_file=_errors_file(options.output.out) if to_file and beside else None,
        again=_again(sys.argv) if to_file and about_images else None,
    )
    listener = JsonLog(sys.stderr) if report.log_json else console

    def table(columns: Sequence[Column], settings: Mapping[str, object]) -> Sink:
        from blip2cli.cli.terminal.table import TableSink

        names = [column.name for column in columns]
        if options.output.errors == "inline":
            names.append("error")
        about = "file_name" if about_images else "text"
        return TableSink(names, sys.stdout, console.paused, about)

    opener = table if options.output.out is None and sys.stdout.isatty() else None
    try:
        count = console.bar_wanted and not report.log_json
        return _work(task, options, listener, opener, count).exit_code
    finally:
        console.close()


def _work(
    task: Task | EmbedTextsTask,
    options: RunOptions,
    listener: Listener,
    opener: SinkOpener | None,
    count: bool,
) -> Summary:
    from blip2cli.tasks import EmbedTextsTask

    if isinstance(task, EmbedTextsTask):
        from blip2cli.pipeline.run_texts import run_texts

        return run_texts(
            task,
            options,
            on_event=listener,
            stdout=sys.stdout.buffer,
            sink_opener=opener,
        )
    from blip2cli.pipeline.run import run

    return run(
        task,
        options,
        on_event=listener,
        stdin=_stdin(),
        stdout=sys.stdout.buffer,
        sink_opener=opener,
        count=count,
    )


def _dry_run(task: Task | EmbedTextsTask, options: RunOptions) -> int:
    """Say what would run. The listing is read to its end, the model is not touched."""
    from blip2cli.sinks import OutputLock, to_stdout
    from blip2cli.storage.text_encoding import printable
    from blip2cli.tasks import EmbedTextsTask

    before = ""
    if isinstance(task, EmbedTextsTask):
        from blip2cli.pipeline.run_texts import UNIT, check_texts

        check_texts(task, options)
        unit, total, names = UNIT, len(task.texts), list(task.texts.lines[:5])
    else:
        from blip2cli.pipeline.plan import check_options, prepare

        check_options(task, options)
        plan = prepare(task, options, _stdin())
        unit, total = "image", sum(1 for _ in plan.refs)
        names = [ref.file_name for ref in plan.first[:5]]
        before = f" ({plan.already} done before)" if plan.already else ""
    if not to_stdout(options.output):
        with OutputLock(options.output.out or ""):
            pass  # a run could write there, and none does at present
    print(f"{task.name}: {total} {unit}{'' if total == 1 else 's'}{before}")
    for name in names:
        print(f"  {printable(name)}")
    if total > len(names):
        print(f"  … and {total - len(names)} more")
    embedded = " (embedded)" if options.model.model in EMBEDDED else ""
    print(f"model: {options.model.model}{embedded}")
    print(f"output: {options.output.out or 'stdout'}")
    settings: dict[str, object] = {
        "device": options.model.device,
        "dtype": options.model.dtype,
    }
    if options.model.quantize is not None:
        settings["quantize"] = options.model.quantize
    settings |= task.settings
    del settings["task"]
    for key, value in settings.items():
        print(f"{key}: {value}")
    return exit_codes.SUCCESS


def _again(arguments: Sequence[str]) -> str:
    """The command line that goes on with the output of this one."""
    words = [word for word in arguments[1:] if word not in ("--overwrite", "--resume")]
    return shlex.join(["blip2cli", *words, "--resume"])


def _errors_file(out: str | None) -> str:
    """The file beside ``out`` that lists failed images, as seen from here."""
    from blip2cli.sinks.paths import OutputPaths

    return os.path.relpath(OutputPaths.of(out or "").errors)


def _stdin() -> BinaryIO | None:
    """The paths of ``-``; none when stdin was closed (``<&-``)."""
    return sys.stdin.buffer if sys.stdin is not None else None
