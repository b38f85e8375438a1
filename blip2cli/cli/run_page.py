"""The page at the end of a run: of its finished output, with the pictures it was made from."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from blip2cli.errors import OptionError, OutputError, option
from blip2cli.options import PageOptions, RunOptions, RunPageOptions
from blip2cli.pipeline.events import PageWritten, Summary
from blip2cli.sinks.paths import OutputPaths, to_stdout
from blip2cli.storage.opening import is_remote

if TYPE_CHECKING:
    from blip2cli.cli.run_metrics import Judged

WritePage = Callable[[Summary, "Judged | None"], PageWritten]


def page_of_run(
    page: RunPageOptions, run: RunOptions, against: str | None = None
) -> WritePage | None:
    """How the page is written, if there is to be one; with references where the run has some.

    Raises UserError for a page that cannot be written, before anything is run.
    """
    if page.report is None:
        return None
    out = run.output.out
    if out is None or to_stdout(run.output) or is_remote(out):
        raise OptionError(
            "report",
            f"{option('report')} shows an output, and there is none to read",
            f"write into a local file with {option('out')}",
        )
    if not run.source.sources:
        raise OptionError(
            "report", f"{option('report')} shows images, and texts are embedded", "leave it out"
        )
    from blip2cli.report.about import Identity
    from blip2cli.report.page_file import check_page, folder_of

    path = run.named(page.report)
    final, summary, output = os.path.realpath(path), run.output.summary, OutputPaths.of(out)
    problem = None
    if output.own(final) or (summary and os.path.realpath(summary) == final):
        problem = f"{option('report')} {path} is a file that belongs to the output"
    elif f"{output.final}/".startswith(f"{folder_of(final)}/"):
        problem = f"{option('report')} {path} keeps its pictures in the folder of the output"
    if problem is not None:
        raise OutputError("report", problem, "choose another name")
    check_page(path, Identity.of_run(out), name="report")
    options = PageOptions(
        rows=(out,),
        out=path,
        no_images=page.no_images,
        against=against,
    )
    return partial(_write, options, run)


def _write(
    options: PageOptions, run: RunOptions, summary: Summary, judged: Judged | None
) -> PageWritten:
    from blip2cli.report import about
    from blip2cli.report.find_images import ImagePlaces
    from blip2cli.report.make import make_page

    places = ImagePlaces.of_run(run.source)
    of_run = about.Summary.of(summary.as_dict())
    return make_page(options, places, of_run, after_run=True, judged=judged)
