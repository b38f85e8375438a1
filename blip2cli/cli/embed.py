"""``blip2cli embed``: a vector for every image, or for every text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from blip2cli.cli.flags.declare import lines, option
from blip2cli.cli.flags.options import ModelFlags, OutputFlags, ReportFlags, run_options
from blip2cli.cli.flags.resuming import ResumeFlags
from blip2cli.cli.flags.source import OptionalSourceFlags
from blip2cli.errors import OptionError

if TYPE_CHECKING:
    from blip2cli.tasks.texts import Texts
    from blip2cli.tasks.vectors import VectorOptions

EXAMPLES = "Example:  blip2cli embed photos/ --kind qformer -o vectors.parquet"
VECTORS = "Vectors"


@dataclass(frozen=True)
class VectorFlags:
    """Which vectors, of what, and how they are written."""

    kind: Annotated[
        Literal["image", "qformer", "projection", "multimodal", "language"] | None,
        option(
            "--kind",
            panel=VECTORS,
            help="image: the vision encoder's; qformer: the Q-Former's; projection: in the space "
            "that images and texts share; multimodal: the Q-Former's, of an image with a text "
            "(these two: retrieval models); language: the language model's, of a text. "
            "\\[default: image; of texts projection, or language]",
            show_default=False,
        ),
    ] = None
    pool: Annotated[
        Literal["cls", "mean", "none"] | None,
        option(
            "--pool",
            panel=VECTORS,
            help="cls: the class token; mean: over patches, queries or tokens; none: all queries "
            "row by row, so D = queries × width. \\[default: cls for image and for texts of "
            "retrieval models, else mean]",
            show_default=False,
        ),
    ] = None
    text: Annotated[
        list[str] | None,
        lines(
            "--text",
            metavar="TEXT",
            panel=VECTORS,
            help="A text to embed in place of images, or beside each (multimodal); repeatable.",
        ),
    ] = None
    texts: Annotated[
        str | None,
        option(
            "--texts",
            metavar="FILE",
            panel=VECTORS,
            help="The same from a .txt with one text a line, or a .jsonl, .csv or .tsv table with "
            "a column text.",
            show_default=False,
        ),
    ] = None
    normalize: Annotated[
        bool, option("--normalize", panel=VECTORS, help="Give every vector the length 1 (L2).")
    ] = False
    embedding_dtype: Annotated[
        Literal["float32", "float16"],
        option("--embedding-dtype", panel=VECTORS, help="What the numbers are written as."),
    ] = "float32"

    @property
    def given(self) -> Texts:
        """The texts. Raises ``OptionError``."""
        from blip2cli.tasks.texts import from_file, from_lines

        if self.text and self.texts is not None:
            raise OptionError("--text and --texts exclude each other; put all texts in one.")
        return from_file(self.texts) if self.texts is not None else from_lines(self.text or [])

    @property
    def options(self) -> VectorOptions:
        from blip2cli.tasks.vectors import VectorOptions

        return VectorOptions(self.normalize, self.embedding_dtype)


def embed(
    source: OptionalSourceFlags,
    *,
    vectors: VectorFlags,
    output: OutputFlags,
    resume: ResumeFlags,
    model: ModelFlags,
    report: ReportFlags,
) -> int:
    """Write an embedding of every image, or of every text."""

    from blip2cli.cli.run_command import Built, perform

    def build() -> Built:
        from blip2cli.tasks import EmbedTask, EmbedTextsTask

        options, texts = run_options(source, model, output, resume), vectors.given
        if options.source.sources:
            kind = vectors.kind or "image"
            return EmbedTask(kind, vectors.pool, vectors.options, texts), options
        if vectors.kind == "multimodal":
            raise OptionError("--kind multimodal looks at images with texts; give SOURCE as well.")
        if not texts:
            raise OptionError(
                "Nothing is embedded; give SOURCE, such as a folder of images, or texts with "
                "--text or --texts."
            )
        return EmbedTextsTask(texts, vectors.kind, vectors.pool, vectors.options), options

    return perform(build, report)
