"""``blip2cli convert``: results into other formats and back, checkpoints into other layouts."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from blip2cli.cli.flags.command import Required
from blip2cli.cli.terminal.progress_bar import progress_bar
from blip2cli.cli.terminal.run_summary import duration
from blip2cli.cli.terminal.spelling import readable, variable
from blip2cli.errors import OptionError, option
from blip2cli.options import (
    CheckpointOptions,
    ConversionOptions,
    ConvertOptions,
    VerbosityOptions,
    declarations,
)

EXAMPLES = (
    "blip2cli convert captions.jsonl captions.csv",
    "blip2cli convert captions.jsonl dataset --to imagefolder --image-root photos",
    "blip2cli convert tiny tiny-int8 --quantize int8",
)


def convert(
    results: Annotated[ConvertOptions, Required(("destination",))],
    checkpoint: CheckpointOptions,
    report: VerbosityOptions,
) -> int:
    """Convert results into another format, or a checkpoint into another layout.

    Results: tables, data sets, evaluation files, sidecars, vectors. Checkpoints: LAVIS's .pth into
    a directory for --model and back, other precisions, other shards.
    """
    if not results.sources:
        raise OptionError(
            "destination",
            f"Only {results.destination!r} was given",
            "name what is converted and, last, what it becomes, such as captions.parquet",
        )
    from blip2cli.convert.detect_format import is_model

    if results.read_as is None and is_model(results.sources[0]):
        _refuse(results, "a checkpoint is", "results")
        return _convert_checkpoint(checkpoint, report.quiet)
    _refuse(checkpoint, "results are", "checkpoints")
    return _convert_results(results, report.quiet)


def _refuse(options: ConversionOptions, ours: str, theirs: str) -> None:
    """Raise ``OptionError`` when an option is given that is for the other kind of conversion.

    What comes from a variable is meant for whichever commands it fits, and only passed over.
    """
    shared = {name for name, _ in declarations(ConversionOptions)}
    defaults = type(options)()
    for name, declared in declarations(type(options)):
        if name in shared or variable(declared.long_flag(name)) in os.environ:
            continue
        if getattr(options, name) != getattr(defaults, name):
            raise OptionError(
                name, f"{option(name)} is for {theirs}, and {ours} converted here", "leave it out"
            )


def _convert_results(options: ConvertOptions, quiet: bool) -> int:
    from blip2cli.convert import convert as run

    with progress_bar(quiet, "B", scaled=True) as bar:  # the only measure known beforehand
        done = run(options, bar)
    rate = done.rows / max(done.seconds, 1e-9)
    count = "1 row" if done.rows == 1 else f"{done.rows} rows"
    line = f"{count} into {options.destination}; {duration(done.seconds)}, {rate:.0f} rows/s."
    _print([*done.notes, line], quiet)
    return 0


def _convert_checkpoint(options: CheckpointOptions, quiet: bool) -> int:
    from blip2cli.convert.checkpoints import convert_checkpoint as run

    with progress_bar(quiet, "B", scaled=True) as bar:  # the only measure known beforehand
        done = run(options, bar) if bar is not None else run(options)
    size, unit = (done.bytes / 1e9, "GB") if done.bytes >= 1e9 else (done.bytes / 1e6, "MB")
    line = f"{done.weights} weights, {size:.1f} {unit}, into {options.destination}; "
    _print([*done.notes, f"{line}{duration(done.seconds)}."], quiet)
    return 0


def _print(lines: list[str], quiet: bool) -> None:
    if not quiet:
        for line in lines:
            print(readable(line), file=sys.stderr)
