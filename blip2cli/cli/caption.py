"""``blip2cli caption``: a caption for every image."""

from __future__ import annotations

from typing import Annotated

from blip2cli.cli.flags.command import Required
from blip2cli.options import (
    CalibrationOptions,
    CaptionOptions,
    DecodeOptions,
    MetricsOptions,
    RankOptions,
    ReportOptions,
    RunOptions,
    RunPageOptions,
)

EXAMPLES = (
    "blip2cli caption photos --model tiny",
    "blip2cli caption photos -o captions.jsonl --resume",
    "blip2cli caption photos -o captions.parquet --preset paper-caption",
)


def caption(
    run: Annotated[RunOptions, Required(("sources",))],
    caption: CaptionOptions,
    decode: DecodeOptions,
    rank: RankOptions,
    confidence: CalibrationOptions,
    metrics: MetricsOptions,
    page: RunPageOptions,
    report: ReportOptions,
) -> int:
    """Write a caption for every image, with its mean token log-probability."""
    from blip2cli.cli.run_command import run_command
    from blip2cli.cli.run_metrics import against_references
    from blip2cli.cli.run_page import page_of_run
    from blip2cli.model.checkpoint.ranker import RankerSpec
    from blip2cli.pipeline.image_items import ImageItems
    from blip2cli.pipeline.job import Job
    from blip2cli.tasks import calibration
    from blip2cli.tasks.caption import CaptionTask

    evaluate = against_references(metrics.references, run.output)
    ranker = None if rank.rank_with is None else RankerSpec(rank.rank_with)
    task = CaptionTask(caption, decode, rank, calibration.from_options(confidence))
    job = Job(ImageItems(), task, run, ranker=ranker)
    write_page = page_of_run(page, run, metrics.references)
    return run_command(job, report, evaluate, write_page)
