"""``blip2cli embed``: a vector for every image, or for every text."""

from __future__ import annotations

from blip2cli.options import EmbedOptions, ReportOptions, RunOptions

EXAMPLES = "Example:  blip2cli embed photos/ --kind qformer -o vectors.parquet"


def embed(run: RunOptions, vectors: EmbedOptions, report: ReportOptions) -> int:
    """Write an embedding of every image, or of every text."""
    from blip2cli.cli.run_command import run_command
    from blip2cli.tasks.from_options import embed_task

    return run_command(embed_task(vectors, of_images=bool(run.source.sources)), run, report)
