"""``blip2cli caption``: a caption for every image."""

from __future__ import annotations

from typing import Annotated

from blip2cli.cli.flags.command import Required
from blip2cli.options import (
    CaptionOptions,
    DecodeOptions,
    MetricsOptions,
    ReportOptions,
    RunOptions,
)

EXAMPLES = "Example:  blip2cli caption photos/ -o captions.jsonl --prompt 'a photo of'"


def caption(
    run: Annotated[RunOptions, Required(("sources",))],
    caption: CaptionOptions,
    decode: DecodeOptions,
    metrics: MetricsOptions,
    report: ReportOptions,
) -> int:
    """Write a caption for every image, with its mean token log-probability."""
    from blip2cli.cli.run_command import run_command
    from blip2cli.cli.run_metrics import against_references
    from blip2cli.pipeline.image_items import ImageItems
    from blip2cli.pipeline.job import Job
    from blip2cli.tasks.caption import CaptionTask

    evaluate = against_references(metrics.references, run.output)
    return run_command(Job(ImageItems(), CaptionTask(caption, decode), run), report, evaluate)
