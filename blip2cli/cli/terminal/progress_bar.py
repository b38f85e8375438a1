"""The progress bar of what is no run: where a person looks, and the total is known late."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[int, int], None]  # done, and of how many


@contextmanager
def progress_bar(quiet: bool, unit: str, scaled: bool = False) -> Iterator[Progress | None]:
    """A bar on stderr, None where nobody looks; ``scaled`` counts in thousands and millions."""
    bar: Any = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            from tqdm import tqdm

            tqdm.monitor_interval = 0
            bar = tqdm(
                total=total, unit=unit, unit_scale=scaled, file=sys.stderr, leave=False,
                dynamic_ncols=True,
            )  # fmt: skip
        bar.update(done - bar.n)

    try:
        yield show if sys.stderr.isatty() and not quiet else None
    finally:
        if bar is not None:
            bar.close()
