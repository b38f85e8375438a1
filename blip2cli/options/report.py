"""The options of pages that show an output."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from blip2cli.errors import OptionError, option
from blip2cli.options.columns import ReferenceOptions
from blip2cli.options.declare import (
    IMAGES,
    METRICS,
    OUTPUT,
    REPORTING,
    SOURCE,
    OptionGroup,
    setting,
)
from blip2cli.options.evaluate import COMPARE_HELP
from blip2cli.options.run import (
    ABSOLUTE_PATHS_HELP,
    IMAGE_COLUMN_HELP,
    IMAGE_ROOT_HELP,
    LIMIT_HELP,
    OVERWRITE_HELP,
    RUN_SUMMARY_HELP,
)

_source = partial(setting, panel=SOURCE)
_images = partial(setting, panel=IMAGES)
_metrics = partial(setting, panel=METRICS)
_output = partial(setting, panel=OUTPUT)
_run = partial(setting, panel=REPORTING)

_NO_IMAGES = "Leave the pictures out of the page, which holds them otherwise."


@dataclass(frozen=True)
class RunPageOptions(OptionGroup):
    """The page that a run writes about its output once it is finished."""

    report: str | None = _run(
        None,
        "Write a page of OUT with its pictures at the end, as report does.",
        metavar="PAGE",
        brief="Write a page of OUT with its pictures at the end.",
    )
    no_images: bool = _run(False, _NO_IMAGES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.no_images and self.report is None:
            raise OptionError(
                "no_images",
                f"{option('no_images')} is about the page of a run",
                f"name one with {option('report')}, or leave it out",
            )


@dataclass(frozen=True)
class PageOptions(ReferenceOptions):
    """What a page shows, and where its pictures are."""

    rows: tuple[str, ...] = _source(
        (),
        "Outputs of caption, ask or embed that are one.",
        positional=True,
        metavar="ROWS...",
        brief=True,
    )
    image_root: str | None = _images(None, IMAGE_ROOT_HELP, metavar="DIR", brief=True)
    source: tuple[str, ...] = _images(
        (),
        "The SOURCE of the run, where the pictures are in archives, tables or buckets; repeatable.",
        metavar="SOURCE",
        brief="The SOURCE of the run, where pictures are no plain files.",
    )
    image_column: str | None = _images(
        None, IMAGE_COLUMN_HELP, metavar="NAME", columns_of=("source",)
    )
    absolute_paths: bool = _images(False, ABSOLUTE_PATHS_HELP)
    no_images: bool = _images(False, _NO_IMAGES, brief=True)
    limit: int | None = _source(None, LIMIT_HELP, metavar="N", minimum=1, brief=True)
    compare: tuple[str, ...] = _source((), COMPARE_HELP, metavar="ROWS", brief=True)
    run_summary: str | None = _source(None, RUN_SUMMARY_HELP, metavar="FILE", brief=True)
    out: str = _output(
        "", "The page, an HTML file.", flag="--output", short="-o", metavar="PAGE", brief=True
    )
    overwrite: bool = _output(False, OVERWRITE_HELP, brief=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        places = [n for n in ("image_root", "source") if getattr(self, n)]
        if len(places) == 2:
            raise OptionError(
                "image_root",
                f"{option('image_root')} and {option('source')} both say where the pictures are",
                "leave one of the two out",
            )
        if self.no_images and places:
            raise OptionError(
                places[0],
                f"{option(places[0])} says where pictures are that {option('no_images')} leaves "
                "out",
                "leave one of the two out",
            )
        for name in ("image_column", "absolute_paths"):
            if getattr(self, name) and not self.source:
                raise OptionError(
                    name,
                    f"{option(name)} is about {option('source')}",
                    "give the source of the run as well, or leave it out",
                )
