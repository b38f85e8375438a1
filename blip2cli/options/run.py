"""The options of every run beside the model's: source, output, limits."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from blip2cli import exit_codes
from blip2cli.errors import OptionError, option
from blip2cli.options.declare import OUTPUT, SETTINGS, SOURCE, OptionGroup, declare, setting
from blip2cli.options.images import LoaderOptions
from blip2cli.options.model import ModelOptions
from blip2cli.options.ray import RayOptions
from blip2cli.options.shard import parse_shard
from blip2cli.options.values import parse_duration, parse_error_limit, parse_stall_timeout

ErrorsMode = Literal["file", "inline"]
LIMIT_HELP = "At most this many images."
IMAGE_COLUMN_HELP = "The column that holds the images, or their paths."
IMAGE_ROOT_HELP = "The folder that names of images are relative to."
RUN_SUMMARY_HELP = (
    f"What {option('summary')} of the run wrote: times and counts, and metrics if there are any."
)
ABSOLUTE_PATHS_HELP = "Manifests may name absolute paths and paths outside their folder."
OVERWRITE_HELP = "Replace OUT if it is there."
MOVED_SOURCE_HELP = (
    "These are the images that OUT, or the other shares, were made from, in another place now."
)


_source = partial(declare, panel=SOURCE, about_images=True)
_recorded_source = partial(_source, shapes_rows=True)
_unrecorded_source = partial(_source, shapes_rows=False)
_output = partial(declare, panel=OUTPUT)
_recorded_output = partial(_output, shapes_rows=True)
_unrecorded_output = partial(_output, shapes_rows=False)
_destination = partial(_unrecorded_output, about_images=False)


@dataclass(frozen=True)
class ConfigOptions(OptionGroup):
    """Which file gives options other defaults; every command takes it."""

    config: str | None = setting(
        None,
        "A TOML file of options, such as num_beams = 5; of a pyproject.toml the table "
        "tool.blip2cli. The command line and variables win over it.",
        panel=SETTINGS,
        metavar="FILE",
    )
    job: str | None = setting(
        None,
        f"Also the options in the table jobs.NAME of {option('config')}, which win over the "
        "others there.",
        panel=SETTINGS,
        metavar="NAME",
        offers="jobs",
    )


@dataclass(frozen=True)
class SourceOptions(OptionGroup):
    """Where images come from and which of them are taken."""

    # As typed: folders, files, globs, URLs, or "-" for paths on stdin. Empty: no image is read.
    sources: tuple[str, ...] = _unrecorded_source(
        (),
        "{sources}.",
        positional=True,
        metavar="SOURCE",
        brief="Folders, images, tables, archives, URLs; - for stdin.",
    )
    include: tuple[str, ...] = _unrecorded_source(
        (),
        "Only file names that match; repeatable.",
        metavar="GLOB",
    )
    exclude: tuple[str, ...] = _unrecorded_source(
        (), f"No file names that match; wins over {option('include')}; repeatable.", metavar="GLOB"
    )
    limit: int | None = _unrecorded_source(None, LIMIT_HELP, metavar="N", minimum=1, brief=True)
    # "I/N", whatever was typed
    shard: str | None = _recorded_source(
        None,
        "Only this share of the images, by a hash of their names: I/N, such as 3/8; auto (auto/N): "
        "the one that torchrun, accelerate, SLURM or Kubernetes says. OUT may hold {shard}.",
        metavar="I/N|auto|auto/N",
        parse=parse_shard,
        offers=("auto",),
    )
    nul: bool = _unrecorded_source(
        False, "Paths on stdin end with NUL instead of a newline.", flag="--null", short="-0"
    )
    keep: tuple[str, ...] = _recorded_source(
        (),
        "Carry this column of the source into the rows; repeatable.",
        metavar="COLUMN",
        brief="Carry this column of the source into the rows.",
        columns_of=("sources",),
    )
    image_column: str | None = _unrecorded_source(
        None, IMAGE_COLUMN_HELP, metavar="NAME", columns_of=("sources",)
    )
    absolute_paths: bool = _unrecorded_source(False, ABSOLUTE_PATHS_HELP)
    moved_source: bool = _unrecorded_source(False, MOVED_SOURCE_HELP)
    check_content: bool = _unrecorded_source(
        False,
        f"With {option('resume')}: look whether image files were written since OUT was, which "
        "takes a moment for each; by default names tell them apart.",
    )
    image_root: str | None = _unrecorded_source(None, IMAGE_ROOT_HELP, metavar="DIR")
    split: str | None = _unrecorded_source(
        None,
        "Of hf://datasets/OWNER/NAME: only the files that have this split in their names.",
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nul and "-" not in self.sources:
            raise OptionError(
                "nul",
                f"{option('nul')} is about paths on stdin",
                "give - as the source, or leave it out",
            )


@dataclass(frozen=True)
class OutputOptions(OptionGroup):
    """Where rows go and what happens to what stands there already."""

    # Path by suffix; None or "-": JSONL on stdout
    out: str | None = _destination(
        None,
        "File for the rows, or folder of Parquet files, also s3://BUCKET/FOLDER/: "
        "{output_suffixes}; - (or none): JSONL on stdout.",
        flag="--output",
        short="-o",
        metavar="OUT",
        brief="Rows: {output_suffixes}.",
    )
    overwrite: bool = _destination(False, OVERWRITE_HELP, brief=True)
    errors: ErrorsMode = _recorded_output(
        "file",
        "Images that failed: into a file beside OUT, or into OUT with an error column.",
        about_images=True,
    )
    summary: str | None = _destination(None, "Write how the run went as JSON.", metavar="FILE")
    resume: bool = _destination(
        False,
        "Go on with OUT if it is there: only images without rows are run.",
        brief="Go on with OUT: only images without rows are run.",
    )
    rows_per_part: int = _recorded_output(
        100_000,
        "Rows of each Parquet file in the folder OUT; the last one has fewer.",
        metavar="N",
        minimum=1,
        about_images=True,
    )
    retry_errors: bool = _unrecorded_output(
        False,
        "Go on with OUT, and try the images again that failed before.",
        about_images=True,
    )

    @property
    def to_folder(self) -> bool:
        """Whether the output is a folder of Parquet files."""
        return self.out is not None and (self.out.endswith("/") or os.path.isdir(self.out))

    @property
    def settings(self) -> dict[str, object]:
        """As of any group; the size of parts shapes nothing where there are none."""
        settings = super().settings
        if not self.to_folder:
            del settings["rows_per_part"]
        return settings

    @property
    def resumes(self) -> bool:
        """Whether a run goes on with an output that is there."""
        return self.resume or self.retry_errors


@dataclass(frozen=True)
class LimitOptions(OptionGroup):
    """When a run stops before its source ends, and when a worker counts as hanging."""

    # A number of images (int), or a share of them (float)
    max_errors: int | float | None = _unrecorded_output(
        None,
        f"Stop with exit code {exit_codes.RUN_FAILED} when more images fail.",
        metavar="N|N%",
        parse=parse_error_limit,
        default_help="no limit",
        about_images=True,
    )
    # Seconds, counted from the beginning of ``pipeline.run.run``: without the imports before it
    max_duration: float | None = _unrecorded_output(
        None,
        f"Stop after 90s, 15m, 2h or 1h30m with exit code {exit_codes.MORE_TO_DO}; "
        f"{option('resume')} goes on.",
        metavar="TIME",
        parse=parse_duration,
        about_images=True,
    )
    # Seconds; of a worker process with a device, where there are several
    stall_timeout: float = _unrecorded_output(
        1800.0,
        "With several devices: start the worker of one again after this time without progress.",
        metavar="TIME",
        parse=parse_stall_timeout,
        default_help="30m",
        about_images=True,
    )


@dataclass(frozen=True)
class RunOptions:
    """Everything a run needs apart from its task."""

    source: SourceOptions = field(default_factory=SourceOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    loader: LoaderOptions = field(default_factory=LoaderOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    limits: LimitOptions = field(default_factory=LimitOptions)
    ray: RayOptions = field(default_factory=RayOptions)

    def __post_init__(self) -> None:
        """Put the share into the names of files: ``{shard}`` becomes ``3-of-8``."""
        if self.source.shard is None:
            return
        output = self.output
        files: dict[str, Any] = {
            name: self.named(path)
            for name in ("out", "summary")
            if (path := getattr(output, name)) is not None
        }
        object.__setattr__(self, "output", replace(output, **files))

    def named(self, path: str) -> str:
        """``path`` with the share in place of ``{shard}``, where there is one."""
        if self.source.shard is None:
            return path
        index, count = self.source.shard.split("/")
        return path.replace("{shard}", f"{index.zfill(len(count))}-of-{count}")

    @property
    def groups(self) -> tuple[OptionGroup, ...]:
        """All groups of options."""
        return (self.model, self.loader, self.output, self.source, self.limits, self.ray)
