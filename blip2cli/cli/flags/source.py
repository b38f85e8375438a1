"""The options that say what is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from blip2cli.cli.flags.declare import SOURCE, lines, option
from blip2cli.errors import OptionError
from blip2cli.options import SourceOptions

SOURCE_HELP = (
    "Folders (read recursively), image files, globs, manifests, Parquet, tar and zip files, each "
    "also as a URL (s3://, gs://, hf://), or - for paths on stdin."
)


@dataclass(frozen=True)
class SourceFlags:
    """What is read."""

    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help=SOURCE_HELP,
            show_default=False,
        ),
    ]
    include: Annotated[
        list[str] | None,
        lines(
            "--include",
            metavar="GLOB",
            panel=SOURCE,
            help="Only file names that match; repeatable.",
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        lines(
            "--exclude",
            metavar="GLOB",
            panel=SOURCE,
            help="No file names that match; wins over --include; repeatable.",
        ),
    ] = None
    limit: Annotated[
        int | None,
        option("--limit", metavar="N", min=1, panel=SOURCE, help="At most so many images."),
    ] = None
    nul: Annotated[
        bool,
        option(
            "--null", "-0", panel=SOURCE, help="Paths on stdin end with NUL instead of a newline."
        ),
    ] = False

    keep: Annotated[
        list[str] | None,
        lines(
            "--keep",
            metavar="COLUMN",
            panel=SOURCE,
            help="Carry this column of the source into the rows; repeatable.",
        ),
    ] = None
    image_column: Annotated[
        str | None,
        option(
            "--image-column",
            metavar="NAME",
            panel=SOURCE,
            help="The column that holds the images, or their paths.",
            show_default=False,
        ),
    ] = None
    absolute_paths: Annotated[
        bool,
        option(
            "--absolute-paths",
            panel=SOURCE,
            help="Manifests may name absolute paths and paths outside their folder.",
        ),
    ] = False

    @property
    def options(self) -> SourceOptions:
        sources = tuple(self.sources or ())
        if self.nul and "-" not in sources:
            raise OptionError(
                "--null is about paths on stdin; give - as the source, or leave it out."
            )
        return SourceOptions(
            sources=sources,
            include=tuple(self.include or ()),
            exclude=tuple(self.exclude or ()),
            limit=self.limit,
            nul=self.nul,
            keep=tuple(self.keep or ()),
            image_column=self.image_column,
            absolute_paths=self.absolute_paths,
        )


@dataclass(frozen=True)
class OptionalSourceFlags(SourceFlags):
    """The same where there may be nothing to read, because texts are given."""

    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help=SOURCE_HELP, show_default=False),
    ] = None  # type: ignore[assignment] # Typer's word for an argument that may be left out
