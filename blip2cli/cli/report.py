"""``blip2cli report``: a page of an output with its pictures."""

from __future__ import annotations

import sys
from typing import Annotated

from blip2cli import exit_codes
from blip2cli.cli.flags.command import Required
from blip2cli.cli.terminal.progress_bar import progress_bar
from blip2cli.cli.terminal.run_summary import page_lines
from blip2cli.cli.terminal.spelling import readable
from blip2cli.options import PageOptions, VerbosityOptions

EXAMPLES = (
    "blip2cli report captions.jsonl -o captions.html",
    "blip2cli report captions.jsonl --against labels.csv -o captions.html",
)


def report(
    page: Annotated[PageOptions, Required(("rows", "out"))], verbosity: VerbosityOptions
) -> int:
    """Write a page that shows an output: pictures, texts, confidence, failures, metrics.

    It opens from disk, without a network. Up to 3,000 rows it is one file; beyond, pictures are in
    a folder beside it.
    """
    from blip2cli.report.about import Summary
    from blip2cli.report.find_images import ImagePlaces
    from blip2cli.report.make import make_page

    stdin = sys.stdin.buffer if sys.stdin is not None else None
    places = ImagePlaces.of(page, stdin)
    summary = Summary.read(page.run_summary) if page.run_summary is not None else None
    with progress_bar(verbosity.quiet, " pictures") as bar:
        made = make_page(page, places, summary, bar)
    if not verbosity.quiet:
        for line in page_lines(made):
            print(readable(line), file=sys.stderr)
    return exit_codes.SUCCESS
