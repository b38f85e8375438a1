"""What a run notes of its making beside an output, and compares when it goes on with one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blip2cli import __version__
from blip2cli.model.checkpoint.ranker import identity_of_both
from blip2cli.options import ModelOptions, RunOptions
from blip2cli.sinks import Settings, check_settings

if TYPE_CHECKING:
    from blip2cli.model.checkpoint.weight_files import Checkpoint
    from blip2cli.pipeline.compute.base import Ready
    from blip2cli.pipeline.job import Job
    from blip2cli.sinks import ResumedOutput
    from blip2cli.sources import Listing
    from blip2cli.tasks.base import BaseTask

# Settings in the order in which outputs hold them; others follow.
_FIRST = ("version", "model", "revision", "quantize", "dtype", "threads", "fast_decode", "compile")


def run_settings(
    task: BaseTask, options: RunOptions, ready: Ready | None = None
) -> dict[str, object]:
    """What shaped the rows, stored once with the output; plain JSON values.

    Without ``ready`` it is what is known before the model is loaded: the precision is missing, and
    the number of threads where rows depend on it.
    """
    settings: dict[str, object] = {"version": __version__}
    for group in options.groups:
        # What is off is null, as in outputs from before there was such an option.
        settings |= {k: None if value is False else value for k, value in group.settings.items()}
    if ready is not None:
        settings["dtype"] = ready.dtype
        if ready.threads is not None:
            settings["threads"] = ready.threads
    first = {name: settings.pop(name) for name in _FIRST if name in settings}
    return first | settings | task.settings


def settings_now(
    job: Job[Any],
    listing: Listing | None,
    checkpoint: Checkpoint | None,
    before: Mapping[str, Any] | None = None,
) -> Settings:
    """What is known before the model is loaded: it looks at the files of model and sources.

    ``before``: sources are noted so that they can be compared with these earlier ones. Raises
    SourceError.
    """
    rows = run_settings(job.task, job.options) | job.items.settings
    if not job.to_file:
        return Settings(rows)
    weights = None
    with contextlib.suppress(OSError):  # loading the model says what is wrong
        weights = identity_of_both(job.options.model, checkpoint, job.ranker)
    return Settings(
        rows,
        weights,
        {column.name: column.type for column in listing.columns} if listing else {},
        listing.identity(before) if listing else None,
        getattr(job.task, "fingerprints", None),
    )


def start_settings(
    job: Job[Any], listing: Listing | None, checkpoint: Checkpoint | None
) -> Future[Settings]:
    """``settings_now`` in a thread of its own, while the model is loaded."""
    thread = ThreadPoolExecutor(1)
    found = thread.submit(settings_now, job, listing, checkpoint)
    thread.shutdown(wait=False)
    return found


def check_resumed(job: Job[Any], resumed: ResumedOutput, listing: Listing) -> None:
    """Raise UserError when rows made now would not fit those of the output.

    What only the loaded model tells is not compared yet.
    """
    before = resumed.rows.settings
    sources = before.sources if before is not None else None
    now = settings_now(job, listing, job.checkpoint, sources)
    moved = job.options.source.moved_source
    check_settings(job.options.output.out or "", before, now, moved)
    if now.questions is not None and before is not None and now.questions != before.questions:
        from blip2cli.tasks.questions import check_unchanged

        check_unchanged(job.task.only, before.questions, resumed.rows.done)


def precision_before(options: ModelOptions, resumed: ResumedOutput | None) -> ModelOptions:
    """``options`` with the precision of the output that is resumed, where it is to be chosen."""
    dtype: Any = _before(resumed, "dtype")
    return replace(options, dtype=dtype) if dtype and options.dtype == "auto" else options


def threads_before(resumed: ResumedOutput | None) -> int | None:
    """The threads of one operation in the run that made the output, where rows depend on them."""
    threads = _before(resumed, "threads")
    return threads if isinstance(threads, int) and threads > 0 else None


def _before(resumed: ResumedOutput | None, name: str) -> Any:
    before = resumed.rows.settings if resumed is not None else None
    return before.rows.get(name) if before is not None else None
