"""``blip2cli embed``: a vector for every image, or for every text."""

from __future__ import annotations

from blip2cli.options import EmbedOptions, ReportOptions, RunOptions

EXAMPLES = "Example:  blip2cli embed photos/ --kind qformer -o vectors.parquet"


def embed(run: RunOptions, vectors: EmbedOptions, report: ReportOptions) -> int:
    """Write an embedding of every image, or of every text."""
    from blip2cli.cli.run_command import run_command
    from blip2cli.pipeline.image_items import ImageItems
    from blip2cli.pipeline.job import Job
    from blip2cli.pipeline.text_items import TextItems
    from blip2cli.tasks.from_options import embed_task, embed_texts_task, embedded_texts

    texts = embedded_texts(vectors)
    if run.source.sources:
        return run_command(Job(ImageItems(), embed_task(vectors, texts), run), report)
    return run_command(Job(TextItems(texts), embed_texts_task(vectors, texts), run), report)
