"""Finds out that nothing is left to do in a finished folder, without a set of all its names.

Not even a list has to be read where the output is noted as complete (``sinks.complete``), and
everything that says which images there are is as it was: the bytes of all manifests and the options
that select. Folders, globs, archives and URLs are listed: new images may have joined them.

Else both are read side by side: rows stand in the order of the source. Where that is not so, as
when images were tried again, or something is left to do, the names are read into a set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from blip2cli.pipeline.plan import PassedOver, Plan
from blip2cli.pipeline.settings import check_resumed
from blip2cli.sinks.base import disk_errors
from blip2cli.sinks.complete import Complete, note_complete, read_complete
from blip2cli.sources import Listing, RefBlock
from blip2cli.storage.hash_set import HashSet

if TYPE_CHECKING:
    from blip2cli.pipeline.job import Job
    from blip2cli.pipeline.stats import RunStats
    from blip2cli.sinks import ResumedOutput


def unchanged_plan(job: Job[Any]) -> Plan | None:
    """The plan of a run that has nothing to do; None where the images have to be listed.

    Raises what ``job.plan`` does.
    """
    if not _may_be_done(job):
        return None
    try:
        found = read_complete(job.options.output)
    except OSError:
        return None  # reading the output says what is wrong
    if found is None:
        return None
    complete, resumed = found
    listing = Listing.open(job.options.source)
    if listing.digest() != complete.listing or not _same_questions(job, resumed):
        return None
    listing = listing.widened(resumed.columns)
    check_resumed(job, resumed, listing)
    passed_over = PassedOver(already=complete.listed)
    return Plan(iter(()), (), 0, passed_over, resumed, listing, failed_before=complete.failed)


def walked_plan(job: Job[Any]) -> Plan | None:
    """The plan of a run that has nothing to do, which listing all images beside the rows shows.

    None where it does not. Raises what ``job.plan`` does.
    """
    if not _may_be_done(job):
        return None
    from blip2cli.sinks.in_order import read_in_order  # Arrow takes a while
    from blip2cli.sinks.row_groups import ARROW_ERRORS

    try:
        rows = read_in_order(job.options.output)
        if rows is None or not _same_questions(job, rows.resumed):
            return None
        listing = Listing.open(job.options.source).widened(rows.resumed.columns)
        check_resumed(job, rows.resumed, listing)
        digest = list_digest(job, listing)
        passed_over = PassedOver()
        failed = rows.resumed.failures.failed if rows.resumed.failures is not None else HashSet()
        images = _Images(rows.keys, job.task.row_count)
        if not _all_dealt_with(listing.blocks(passed_over.others), images, failed, passed_over):
            return None
    except ARROW_ERRORS:
        return None  # reading the output says what is wrong
    resumed, count = rows.with_images(images.count), len(failed)
    return Plan(
        iter(()), (), 0, passed_over, resumed, listing, failed_before=count, list_digest=digest
    )


class _Images:
    """The keys of the images that rows in order are about."""

    def __init__(self, rows: Iterator[Sequence[str]], row_count: Callable[[str], int]) -> None:
        self.count = 0  # of images so far
        self._rows, self._row_count = rows, row_count
        self._keys: Sequence[str] = ()
        self._at = 0  # the first of the keys that was not asked for

    def next_are(self, keys: Sequence[str]) -> bool:
        """Whether the next images are these; then others are the next."""
        while len(self._keys) - self._at < len(keys):
            more = self._more()
            if not more:
                return False
            self._keys, self._at = [*self._keys[self._at :], *more], 0
        if self._keys[self._at : self._at + len(keys)] != keys:
            return False
        self._at += len(keys)
        return True

    def rest_is_whole(self) -> bool:
        """Whether all further images, which are no longer listed, have their rows."""
        while (more := self._more()) is not None:
            if not more:
                return False
        return True

    def _more(self) -> Sequence[str] | None:
        """More keys; None at the end, and empty where an image has not all its rows together."""
        rows = list(next(self._rows, ()))
        if not rows:
            return None
        count = self._row_count(rows[0])
        while len(rows) % count:
            further = next(self._rows, None)
            if further is None:
                return ()
            rows += further
        keys = rows[::count]
        alike = all(rows[n::count] == keys for n in range(1, count))
        if not alike or {*map(self._row_count, keys)} != {count}:
            return ()
        self.count += len(keys)
        return keys


def _all_dealt_with(
    blocks: Iterator[RefBlock], images: _Images, failed: HashSet, passed_over: PassedOver
) -> bool:
    """Whether all images that are listed have rows in this order, or have failed; counts them."""
    for block in blocks:
        keys = list(block.keys)
        if not images.next_are(keys):
            left = [k for k, f in zip(keys, failed.contains(keys), strict=True) if not f]
            if len(left) == len(keys) or not images.next_are(left):
                return False
        passed_over.already += len(keys)
    return images.rest_is_whole()


def _may_be_done(job: Job[Any]) -> bool:
    """Whether a run resumes a folder, and nothing but names tells which images are left."""
    output, source = job.options.output, job.options.source
    if not (job.to_file and output.resume and output.to_folder) or output.retry_errors:
        return False
    return job.task.only is None and not source.check_content and "-" not in source.sources


def _same_questions(job: Job[Any], resumed: ResumedOutput) -> bool:
    before = resumed.rows.settings
    return before is not None and before.questions == getattr(job.task, "fingerprints", None)


def list_digest(job: Job[Any], listing: Listing) -> str | None:
    """The digest of what is listed now, where it may be noted at the end; None where not."""
    noted = job.to_file and job.options.output.to_folder and job.task.only is None
    return listing.digest() if noted else None


def note_finished(job: Job[Any], plan: Plan, stats: RunStats) -> None:
    """Note that all images of the plan are dealt with, unless their list changed meanwhile.

    Raises ``RunError``.
    """
    if plan.list_digest is None or plan.listing is None:
        return
    before = plan.resumed.rows.count if plan.resumed is not None else 0
    out = job.options.output.out or ""
    with disk_errors(out, "its rows are safe"):
        if plan.listing.digest() == plan.list_digest:
            failed = plan.failed_before + stats.failed
            listed = plan.passed_over.already + stats.done + stats.failed
            note_complete(out, Complete(plan.list_digest, before + stats.done, failed, listed))
