"""What a run is going to do, found out before anything heavy is loaded."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blip2cli import __version__
from blip2cli.pipeline import events
from blip2cli.sinks import ResumedOutput
from blip2cli.sources import Listing

if TYPE_CHECKING:
    from blip2cli.sources.readers.stdin import PathStream


@dataclass
class PassedOver:
    """How many items a listing has passed over so far."""

    skipped: int = 0  # the task is not about them
    already: int = 0  # an earlier run has dealt with them
    others: Counter[str] = field(default_factory=Counter)  # files of kinds that are not read


@dataclass
class Plan:
    """Items that were listed: there are some, and they fit the task."""

    items: Iterator[Any]  # everything to be run, once
    # Of the first ones; none when an earlier run has dealt with all, or a share has none
    names: tuple[str, ...]
    total: int | None  # None: more than were listed beforehand
    passed_over: PassedOver = field(default_factory=PassedOver)
    resumed: ResumedOutput | None = None  # what an earlier run left
    listing: Listing | None = None  # the sources of images
    failed_before: int = 0  # items that failed in an earlier run and are not tried again
    retried: int = 0  # items that failed in an earlier run and are
    counter: threading.Thread | None = None  # finds out ``total``
    list_digest: str | None = None  # of the list of images; see ``unchanged``
    stdin: PathStream | None = None  # where paths of items come from as somebody gives them

    def start_counting(self) -> None:
        """Start the counter, if there is one; called once the first batch is there, not to compete
        with it."""
        if self.counter is not None:
            self.counter.start()

    def resumed_event(self, earlier: ResumedOutput) -> events.Resumed:
        """What the ``earlier`` run left, as an event."""
        settings = earlier.rows.settings
        version = settings.rows.get("version") if settings is not None else None
        return events.Resumed(
            images=earlier.rows.count,
            failed=self.failed_before,
            retried=self.retried,
            version=str(version) if version != __version__ else None,
            remark=earlier.rows.remark,
        )
