"""The lines about a run: how far it is, what was done before, how it ended, where time went."""

from __future__ import annotations

from blip2cli.exit_codes import FAILED_IMAGES, MORE_TO_DO, SUCCESS
from blip2cli.pipeline.events import (
    DeviceUsed,
    PageWritten,
    Progress,
    Resumed,
    Summary,
    Waiting,
    WorkerEnded,
)
from blip2cli.sources.image_suffixes import listed_others

_DONE = {"caption": "captioned", "ask": "answered", "embed": "embedded"}


def progress_line(event: Progress, seconds: float, unit: str = "image") -> str:
    """One plain line on how far the run is, ``seconds`` after the model was ready."""
    seen = event.done + event.failed
    rate, left = pace(event, seconds)
    line = f"{seen} of {event.total} {unit}s" if event.total is not None else f"{seen} {unit}s"
    if event.failed:
        line += f", {event.failed} failed"
    line += f", {rate:.2f} {unit}s/s"
    if left is not None:
        line += f", {duration(left)} left"
    return line


def pace(event: Progress, seconds: float) -> tuple[float, float | None]:
    """Images a second, ``seconds`` after the model was ready, and seconds left if that is known."""
    seen = event.done + event.failed
    rate = seen / seconds if seconds > 0 else 0.0
    if event.total is None or not rate:
        return rate, None
    return rate, max(0, event.total - seen) / rate


def waiting_line(event: Waiting, unit: str = "image") -> str:
    """The line about a run whose rows do not come."""
    return f"No {unit} done for {duration(event.seconds)}: waiting for {event.what}."


def resumed_lines(event: Resumed) -> list[str]:
    """The lines about an output that a run goes on with."""
    line = f"Going on: {count_of(event.images)} done before"
    if event.failed:
        line += f", {event.failed} failed before (--retry-errors tries them again)"
    if event.retried:
        line += f", {event.retried} that failed are tried again"
    lines = [line + "."]
    if event.version is not None:
        lines.append(f"Note: the rows so far were written by blip2cli {event.version}.")
    return lines


def summary_lines(
    summary: Summary, errors_file: str | None = None, again: str | None = None
) -> list[str]:
    """The lines that end a run.

    ``errors_file`` is where failed images are listed, if anywhere; ``again`` the command that
    goes on with the output.
    """
    s = summary
    if s.exit_code in (SUCCESS, FAILED_IMAGES) and s.already and not s.done and not s.failed:
        return [f"Nothing left to do: {count_of(s.already)} done before."]
    line = f"{count_of(s.done, s.unit)} {_DONE.get(s.task, 'done')}"
    if s.rows != s.done:
        line += f" in {s.rows} rows"
    if s.failed:
        line += f", {s.failed} failed"
    if s.skipped:
        line += f", {s.skipped} skipped"
    if s.already:
        line += f", {s.already} done before"
    line += f"; {duration(s.seconds)}, {s.images_per_second:.2f} {s.unit}s/s"
    if s.done or s.failed:
        line += f" (read {s.read_share:.0%}, model {s.model_share:.0%}, write {s.write_share:.0%})"
    if s.flagged:
        line += f"; {s.flagged} texts flagged" if s.flagged > 1 else "; 1 text flagged"
        line += f", {s.retried} good after a retry" if s.retried else ""
    if s.abstained:
        line += f"; {s.abstained} of {s.rows} rows abstained"
    lines = [line + "."]
    if s.other_files:
        lines.append(f"Passed over, of kinds that are not read: {listed_others(s.other_files)}.")
    if s.failed and errors_file is not None:
        lines.append(f"Images that failed are listed in {errors_file}")
    if s.exit_code > 128:
        lines.append("Interrupted; the rows that were finished are safe.")
    elif s.exit_code == MORE_TO_DO:
        lines.append("The time of --max-duration is up; the rows that were finished are safe.")
    if (s.exit_code > 128 or s.exit_code == MORE_TO_DO) and again is not None:
        lines.append(f"Go on with: {again}")
    return lines


def worker_line(event: WorkerEnded) -> str:
    """The line about a worker process that ended before its time."""
    line = f"The worker on {event.device} ended ({event.reason}); its batches are done by others"
    return line + (", and it is started again." if event.again else ", and it is given up.")


def device_line(event: DeviceUsed, unit: str = "image") -> str:
    """The line about what one of several devices did."""
    rate = event.images / event.seconds if event.seconds > 0 else 0.0
    batches = "1 batch" if event.batches == 1 else f"{event.batches} batches"
    return f"{event.device}: {batches}, {count_of(event.images, unit)}, {rate:.2f} {unit}s/s."


def phases_line(summary: Summary) -> str:
    """Where the seconds went that a small job mostly consists of."""
    s = summary
    loading = s.load_seconds - s.import_seconds - s.list_seconds
    return (
        f"Start: {s.list_seconds:.2f} s listing, {s.import_seconds:.2f} s importing, "
        f"{loading:.2f} s loading; first rows after {s.first_seconds:.2f} s, "
        f"all after {s.seconds:.2f} s."
    )


def duration(seconds: float) -> str:
    """Seconds as a person writes them: ``3.1 s``, ``4 min 10 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count_of(number: int, unit: str = "image") -> str:
    """``1 image``, ``12 images``."""
    return f"1 {unit}" if number == 1 else f"{number} {unit}s"


def page_lines(event: PageWritten) -> list[str]:
    """The lines about a page that was written."""
    rows = "1 row" if event.rows == 1 else f"{event.rows} rows"
    pictures = count_of(event.pictures, "picture")
    notes = [f"Note: {note}" for note in event.notes]
    return [*notes, f"{rows} and {pictures} into {event.path}; {duration(event.seconds)}."]
