"""What every command does once its task and options are built: run it and report."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blip2cli import exit_codes
from blip2cli.cli.terminal.console import Console
from blip2cli.cli.terminal.log_json import JsonLog
from blip2cli.model.checkpoint.embedded import EMBEDDED

if TYPE_CHECKING:
    from blip2cli.options import ReportOptions
    from blip2cli.pipeline.job import Job
    from blip2cli.sinks.base import Column, Sink


def run_command(job: Job[Any], report: ReportOptions) -> int:
    """Run the job, print what is to be said, and return the exit code."""
    # Stdin is None when it was closed (``<&-``).
    job = replace(
        job, stdin=sys.stdin.buffer if sys.stdin is not None else None, stdout=sys.stdout.buffer
    )
    return _dry_run(job) if report.dry_run else _run(job, report)


def _run(job: Job[Any], report: ReportOptions) -> int:
    from blip2cli.pipeline.run import run
    from blip2cli.system import library_logging

    library_logging.show_library_messages(report.verbose >= 2)
    if report.quiet or report.log_json:
        library_logging.show_downloads(False)
    output = job.options.output
    beside = output.errors == "file"
    console = Console(
        sys.stderr,
        quiet=report.quiet,
        verbosity=report.verbose,
        list_failures=beside and not job.to_file,
        errors_file=_errors_file(output.out) if job.to_file and beside else None,
        again=_again(sys.argv) if job.to_file and job.items.resumable else None,
    )
    listener = JsonLog(sys.stderr) if report.log_json else console

    def table(columns: Sequence[Column], settings: Mapping[str, object]) -> Sink:
        from blip2cli.cli.terminal.row_table import TableSink

        names = [column.name for column in columns]
        if output.errors == "inline":
            names.append("error")
        return TableSink(names, sys.stdout, console.paused, job.items.name_column)

    if output.out is None and sys.stdout.isatty():
        job = replace(job, sink=table)
    job = replace(job, count_all=console.bar_wanted and not report.log_json)
    try:
        return run(job, listener).exit_code
    finally:
        console.close()


def _dry_run(job: Job[Any]) -> int:
    """Say what would run. The listing is read to its end, the model is not touched."""
    from blip2cli.sinks import OutputLock
    from blip2cli.storage.text_encoding import printable

    options = job.options
    plan = job.check().plan()
    unit, total, names = job.items.unit, sum(1 for _ in plan.items), plan.names[:5]
    already = plan.passed_over.already
    before = f" ({already} done before)" if already else ""
    if job.to_file:
        with OutputLock(options.output.out or ""):
            pass  # a run could write there, and none does at present
    print(f"{job.task.name}: {total} {unit}{'' if total == 1 else 's'}{before}")
    for name in names:
        print(f"  {printable(name)}")
    if total > len(names):
        print(f"  … and {total - len(names)} more")
    embedded = " (embedded)" if options.model.model in EMBEDDED else ""
    print(f"model: {options.model.model}{embedded}")
    print(f"output: {options.output.out or 'stdout'}")
    print(f"device: {options.model.device}\ndtype: {options.model.dtype}")
    if options.model.quantize is not None:
        print(f"quantize: {options.model.quantize}")
    for key, value in job.task.settings.items():
        if key != "task":
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
