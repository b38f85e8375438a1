"""``blip2cli embed``: a vector for every image."""

from __future__ import annotations

from typing import Annotated, Literal

from blip2cli.cli.options import (
    ModelFlags,
    OutputFlags,
    ReportFlags,
    SourceFlags,
    option,
    run_options,
)
from blip2cli.cli.resuming import ResumeFlags

EXAMPLES = "Example:  blip2cli embed photos/ --kind qformer -o vectors.parquet"
VECTORS = "Vectors"


def embed(
    source: SourceFlags,
    *,
    kind: Annotated[
        Literal["projection", "image", "qformer", "multimodal"],
        option(
            "--kind",
            panel=VECTORS,
            help="image: the vision encoder's; qformer: the Q-Former's query outputs; projection "
            "and multimodal: retrieval models only.",
        ),
    ] = "image",
    pool: Annotated[
        Literal["cls", "mean", "none"] | None,
        option(
            "--pool",
            panel=VECTORS,
            help="cls (image): the pooled class token; mean: over patches or queries; none "
            "(qformer): all queries row by row, so D = queries × width. \\[default: cls for image, "
            "mean for qformer]",
            show_default=False,
        ),
    ] = None,
    output: OutputFlags,
    resume: ResumeFlags,
    model: ModelFlags,
    report: ReportFlags,
) -> int:
    """Write an embedding of every image (float32, not normalised)."""

    from blip2cli.cli.perform import Built, perform

    def build() -> Built:
        from blip2cli.tasks import EmbedTask

        return EmbedTask(kind, pool), run_options(source, model, output, resume)

    return perform(build, report)
