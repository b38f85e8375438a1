"""``blip2cli report``: a page of an output with its pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

from blip2cli import exit_codes
from blip2cli.cli.flags.command import Required
from blip2cli.cli.terminal.run_summary import page_lines
from blip2cli.cli.terminal.spelling import readable
from blip2cli.options import PageOptions, VerbosityOptions

EXAMPLES = "Example:  blip2cli report captions.jsonl --image-root photos -o page.html"


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
    bar = _Bar() if sys.stderr.isatty() and not verbosity.quiet else None
    try:
        made = make_page(page, places, summary, bar)
    finally:
        if bar is not None:
            bar.close()
    if not verbosity.quiet:
        for line in page_lines(made):
            print(readable(line), file=sys.stderr)
    return exit_codes.SUCCESS


class _Bar:
    """A progress bar in pictures."""

    def __init__(self) -> None:
        self._bar: Any = None
        self.close: Callable[[], None] = lambda: None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            from tqdm import tqdm

            tqdm.monitor_interval = 0
            self._bar = tqdm(
                total=total, unit=" pictures", file=sys.stderr, leave=False, dynamic_ncols=True
            )
            self.close = self._bar.close
        self._bar.update(done - self._bar.n)
