"""What every command does once its task and options are built: run it and report."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from blip2cli import exit_codes
from blip2cli.cli.run_metrics import FINISHED, Evaluate, report_metrics
from blip2cli.cli.run_page import WritePage
from blip2cli.cli.terminal.console import Console
from blip2cli.cli.terminal.log_json import JsonLog
from blip2cli.cli.terminal.spelling import readable
from blip2cli.cli.terminal.streams import (
    OneLineJson,
    show_tracebacks_of_threads,
    stdout_is_closed,
)
from blip2cli.errors import OptionError, option
from blip2cli.model.checkpoint.embedded import EMBEDDED
from blip2cli.sinks.paths import to_stdout
from blip2cli.storage.secrets import hide_secrets
from blip2cli.system.garbage import collection_off

if TYPE_CHECKING:
    from blip2cli.options import ReportOptions
    from blip2cli.pipeline.job import Job
    from blip2cli.sinks.base import Column, Sink


def run_command(
    job: Job[Any],
    report: ReportOptions,
    evaluate: Evaluate | None = None,
    write_page: WritePage | None = None,
) -> int:
    """Run the job, print what is to be said, and return the exit code.

    Once the output is finished, ``evaluate`` compares it with references, and ``write_page`` shows
    it.
    """
    stdout: BinaryIO = sys.stdout.buffer
    if sys.stdout.isatty():
        stdout = cast(BinaryIO, OneLineJson(stdout))
    # Stdin is None when it was closed (``<&-``).
    job = replace(job, stdin=sys.stdin.buffer if sys.stdin is not None else None, stdout=stdout)
    if to_stdout(job.options.output) and stdout_is_closed() and not report.dry_run:
        raise OptionError(
            "out",
            "There is no place for the rows: stdout is closed",
            f"give {option('out')} a file",
        )
    return _dry_run(job) if report.dry_run else _run(job, report, evaluate, write_page)


def _run(
    job: Job[Any], report: ReportOptions, evaluate: Evaluate | None, write_page: WritePage | None
) -> int:
    from blip2cli.pipeline.run import run
    from blip2cli.system import library_logging

    library_logging.show_library_messages(report.verbose >= 2)
    show_tracebacks_of_threads(report.verbose >= 2)
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
    job = replace(job, count_all=console.bar_wanted or report.log_json)
    try:
        with collection_off():
            summary = run(job, listener)
        judged = None
        if evaluate is not None and summary.exit_code in FINISHED:
            judged = report_metrics(evaluate, summary, output.summary, listener)
        if write_page is not None and summary.exit_code in FINISHED:
            listener(write_page(summary, judged))
        return summary.exit_code
    finally:
        console.close()


def _dry_run(job: Job[Any]) -> int:
    """Say what would run. The listing is read to its end, the model is not touched."""
    from blip2cli.sinks import lock_of
    from blip2cli.sources.image_suffixes import listed_others

    options = job.options
    plan = job.check().plan()
    unit, total, names = job.items.unit, sum(1 for _ in plan.items), plan.names[:5]
    already = plan.passed_over.already
    before = f" ({already} done before)" if already else ""
    if job.to_file:
        with lock_of(options.output.out or ""):
            pass  # a run could write there, and none does at present
    lines = [f"{job.task.name}: {total} {unit}{'' if total == 1 else 's'}{before}"]
    lines += (f"  {name}" for name in names)
    if total > len(names):
        lines.append(f"  … and {total - len(names)} more")
    if others := plan.passed_over.others:
        lines.append(f"  passed over, of kinds that are not read: {listed_others(others)}")
    if options.source.shard is not None:
        lines.append(f"shard: {options.source.shard}")
    embedded = " (embedded)" if options.model.model in EMBEDDED else ""
    lines += [
        f"model: {options.model.model}{embedded}",
        f"output: {options.output.out or 'stdout'}",
        f"device: {options.model.device}",
        f"dtype: {options.model.dtype}",
    ]
    if options.model.quantize is not None:
        lines.append(f"quantize: {options.model.quantize}")
    lines += (f"{key}: {value}" for key, value in job.task.settings.items() if key != "task")
    for line in lines:
        print(readable(line))
    return exit_codes.SUCCESS


def _again(arguments: Sequence[str]) -> str:
    """The command line that goes on with the output of this one, as a shell reads it."""
    words = [word for word in arguments[1:] if word not in ("--overwrite", "--resume")]
    return " ".join(map(_quoted, ["blip2cli", *words, "--resume"]))


def _quoted(word: str) -> str:
    """``word`` for bash; in ``$'…'`` where it holds what no terminal should see."""
    word = hide_secrets(word)
    if word.isprintable():
        return shlex.quote(word)
    escaped = (c if c.isprintable() and c not in "\\'" else _octal(c) for c in word)
    return f"$'{''.join(escaped)}'"


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))


def _errors_file(out: str | None) -> str:
    """The file beside ``out`` that lists failed images, as seen from here."""
    from blip2cli.sinks.paths import OutputPaths

    paths = OutputPaths.of(out or "")
    return hide_secrets(paths.errors) if paths.is_remote else os.path.relpath(paths.errors)
