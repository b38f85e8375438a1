"""A summary of a run, as the terminal prints it."""

from __future__ import annotations

from blip2cli.pipeline.events import (
    Summary,
)

SUMMARY = Summary(
    task="ask",
    model="tiny",
    output="out.jsonl",
    done=10,
    failed=2,
    skipped=1,
    already=0,
    rows=20,
    seconds=90.0,
    load_seconds=2.0,
    images_per_second=5.0,
    read_share=0.25,
    model_share=0.7,
    write_share=0.05,
    exit_code=3,
)
