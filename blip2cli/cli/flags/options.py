"""The options that commands share: their names, help and defaults, in groups.

Each group is a dataclass whose fields are Typer parameters (see ``expand``) and whose properties
build the option objects of ``blip2cli.options``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from blip2cli.cli.flags.declare import MODEL, OUTPUT, REPORT, option
from blip2cli.errors import OptionError
from blip2cli.images.limits import check_loading
from blip2cli.options import (
    DEFAULT_MODEL,
    Dtype,
    ErrorsMode,
    LoaderOptions,
    ModelOptions,
    OutputOptions,
    Quantize,
    RunOptions,
)

if TYPE_CHECKING:
    from blip2cli.cli.flags.resuming import ResumeFlags
    from blip2cli.cli.flags.source import SourceFlags

AUTO = "auto"
DTYPE_HELP = (
    "Precision; auto takes bfloat16 where it is quick, and in conversions the one the weights have."
)

COMPILE_HELP = (
    "Compile the image side first, which takes seconds to minutes; pays for many images, if at all."
)
QUANTIZE_HELP = (
    "Linear layers in eight bits: stored so by conversions, elsewhere multiplied so as well, which "
    "is quicker on a CPU, takes less memory, and is not quite exact. int4: four bits, on a GPU."
)


def _batch_size(text: str) -> str:
    if text == AUTO or re.fullmatch(r"0*[1-9][0-9]*", text, re.ASCII):
        return text
    raise typer.BadParameter(f"give auto or a positive number, not {text!r}.")


@dataclass(frozen=True)
class ModelFlags:
    """Which model, where, and how images reach it."""

    model: Annotated[
        str,
        option(
            "--model",
            metavar="NAME",
            panel=MODEL,
            help="Hub id, local directory, or an embedded demonstration: tiny, tiny-t5, tiny-itm.",
        ),
    ] = DEFAULT_MODEL
    revision: Annotated[
        str | None,
        option(
            "--revision", metavar="REV", panel=MODEL, help="Branch, tag or commit of a hub model."
        ),
    ] = None
    device: Annotated[
        str, option("--device", metavar="NAME", panel=MODEL, help="auto, cpu, cuda, cuda:1, mps.")
    ] = "auto"
    dtype: Annotated[
        Dtype,
        option("--dtype", panel=MODEL, help=DTYPE_HELP),
    ] = "auto"
    quantize: Annotated[
        Quantize | None,
        option("--quantize", panel=MODEL, help=QUANTIZE_HELP, show_default=False),
    ] = None
    compile: Annotated[bool, option("--compile/--no-compile", panel=MODEL, help=COMPILE_HELP)] = (
        False
    )
    batch_size: Annotated[
        str,
        option(
            "--batch-size",
            metavar="N",
            panel=MODEL,
            help="Images a batch; auto: by the model and the memory.",
            parser=_batch_size,
        ),
    ] = AUTO
    workers: Annotated[
        int | None,
        option(
            "--workers",
            metavar="N",
            min=0,
            panel=MODEL,
            help="Processes that read images; 0 reads in this one. "
            "\\[default: by cores, where images are waited for]",
            show_default=False,
        ),
    ] = None
    image_timeout: Annotated[
        float | None,
        option(
            "--image-timeout",
            metavar="SECONDS",
            panel=MODEL,
            help="Seconds one image may take to be read and decoded; slower ones fail. "
            "\\[default: no limit]",
            show_default=False,
        ),
    ] = None
    fast_decode: Annotated[
        bool,
        option(
            "--fast-decode",
            panel=MODEL,
            help="Decode JPEGs no larger than the model needs: quicker for large photographs, and "
            "pixels differ a little.",
        ),
    ] = False

    @property
    def options(self) -> ModelOptions:
        return ModelOptions(
            self.model,
            self.revision,
            self.device,
            self.dtype,
            quantize=self.quantize,
            compile=self.compile,
        )

    @property
    def loader(self) -> LoaderOptions:
        size = None if self.batch_size == AUTO else int(self.batch_size)
        options = LoaderOptions(size, self.workers, self.image_timeout, self.fast_decode)
        check_loading(options)
        return options


@dataclass(frozen=True)
class OutputFlags:
    """What is written."""

    output: Annotated[
        str | None,
        option(
            "--output",
            "-o",
            metavar="OUT",
            panel=OUTPUT,
            help="File for the rows: .jsonl, .jsonl.gz or .parquet; - (or none): JSONL on stdout.",
            show_default=False,
        ),
    ] = None
    overwrite: Annotated[
        bool, option("--overwrite", panel=OUTPUT, help="Replace OUT if it is there.")
    ] = False
    errors: Annotated[
        ErrorsMode,
        option(
            "--errors",
            panel=OUTPUT,
            help="Images that failed: into a file beside OUT, or into OUT with an error column.",
        ),
    ] = "file"
    summary: Annotated[
        str | None,
        option(
            "--summary",
            metavar="FILE",
            panel=OUTPUT,
            help="Write how the run went as JSON.",
            show_default=False,
        ),
    ] = None

    @property
    def options(self) -> OutputOptions:
        return OutputOptions(
            out=self.output, overwrite=self.overwrite, errors=self.errors, summary=self.summary
        )


VERBOSE_HELP = "Say more: -v the device, the precision and why; -vv also what the libraries say."
QUIET_HELP = "Say nothing but errors."


@dataclass(frozen=True)
class ReportFlags:
    """What is said on stderr."""

    dry_run: Annotated[
        bool, option("--dry-run", panel=REPORT, help="Say what would be done, and do nothing.")
    ] = False
    verbose: Annotated[
        int,
        option("--verbose", "-v", count=True, panel=REPORT, help=VERBOSE_HELP, show_default=False),
    ] = 0
    quiet: Annotated[bool, option("--quiet", "-q", panel=REPORT, help=QUIET_HELP)] = False
    log_json: Annotated[
        bool,
        option(
            "--log-json",
            panel=REPORT,
            help="Say everything as JSON, an object a line, for other programs.",
        ),
    ] = False

    def check(self) -> None:
        """Raise ``OptionError`` when both more and less is asked for."""
        if self.quiet and self.verbose:
            raise OptionError("--quiet and --verbose contradict each other; leave one out.")


@dataclass(frozen=True)
class AskReportFlags(ReportFlags):
    """The same where ``-q`` is a question."""

    quiet: Annotated[bool, option("--quiet", panel=REPORT, help=QUIET_HELP)] = False


def run_options(
    source: SourceFlags, model: ModelFlags, output: OutputFlags, resume: ResumeFlags
) -> RunOptions:
    """The option object of a whole run."""
    return RunOptions(
        source=source.options,
        model=model.options,
        loader=model.loader,
        output=replace(
            output.options,
            resume=resume.resume or resume.retry_errors,
            retry_errors=resume.retry_errors,
        ),
        limits=resume.limits,
    )
