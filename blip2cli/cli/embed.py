"""``blip2cli embed``: a vector for every image, or for every text."""

from __future__ import annotations

from blip2cli.errors import OptionError, option
from blip2cli.options import EmbedOptions, ReportOptions, RunOptions, RunPageOptions

EXAMPLES = (
    "blip2cli embed photos --kind qformer -o vectors.parquet",
    "blip2cli embed photos --model tiny-itm --kind projection -o pictures.parquet",
    "blip2cli embed --text 'two cats' --model tiny-itm -o texts.parquet",
)


def embed(
    run: RunOptions, vectors: EmbedOptions, page: RunPageOptions, report: ReportOptions
) -> int:
    """Write an embedding of every image, or of every text."""
    from blip2cli.cli.run_command import run_command
    from blip2cli.cli.run_page import page_of_run
    from blip2cli.pipeline.image_items import ImageItems
    from blip2cli.pipeline.job import Job
    from blip2cli.pipeline.text_items import TextItems
    from blip2cli.tasks.embed import EmbedTask
    from blip2cli.tasks.embed_texts import EmbedTextsTask
    from blip2cli.tasks.texts import from_options

    texts = from_options(vectors)
    write_page = page_of_run(page, run)
    if run.source.sources:
        job = Job(ImageItems(), EmbedTask(vectors, texts), run)
        return run_command(job, report, write_page=write_page)
    if vectors.kind == "multimodal":
        raise OptionError(
            "kind",
            f"{option('kind')} multimodal looks at images with texts",
            f"give {option('sources')} as well",
        )
    if not texts:
        raise OptionError(
            "sources",
            "Nothing is embedded",
            f"give {option('sources')}, such as a folder of images, or texts with "
            f"{option('text')} or {option('texts')}",
        )
    return run_command(Job(TextItems(texts), EmbedTextsTask(vectors), run), report)
