"""Finds out that nothing is left to do without listing a single image.

That is certain where an output is complete and noted so (``sinks.complete``), and everything that
says which images there are is as it was: the bytes of all manifests and the options that select.
Folders, globs, archives and URLs are listed: new images may have joined them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blip2cli.pipeline.plan import PassedOver, Plan
from blip2cli.pipeline.settings import check_resumed
from blip2cli.sinks.base import disk_errors
from blip2cli.sinks.complete import Complete, note_complete, read_complete
from blip2cli.sources import Listing

if TYPE_CHECKING:
    from blip2cli.pipeline.job import Job
    from blip2cli.pipeline.stats import RunStats


def unchanged_plan(job: Job[Any]) -> Plan | None:
    """The plan of a run that has nothing to do; None where the images have to be listed.

    Raises what ``job.plan`` does.
    """
    output, source = job.options.output, job.options.source
    if not (job.to_file and output.resume and output.to_folder) or job.task.only is not None:
        return None
    if output.retry_errors or source.check_content:
        return None
    try:
        found = read_complete(output)
    except OSError:
        return None  # reading the output says what is wrong
    if found is None:
        return None
    complete, resumed = found
    listing = Listing.open(source, None) if "-" not in source.sources else None
    if listing is None or listing.digest() != complete.listing:
        return None
    listing = listing.widened(resumed.columns)
    check_resumed(job, resumed, listing)
    passed_over = PassedOver(already=complete.listed)
    return Plan(iter(()), (), 0, passed_over, resumed, listing, failed_before=complete.failed)


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
