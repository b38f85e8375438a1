"""The options of conversions: of results, and of checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from blip2cli.errors import OptionError, option
from blip2cli.options.declare import (
    CHECKPOINTS,
    FORMAT,
    IDS,
    IMAGES,
    OUTPUT,
    TEXTS,
    OptionGroup,
    setting,
)
from blip2cli.options.model import DTYPE_HELP, QUANTIZE_HELP, Dtype

ImagesMode = Literal["link", "copy", "none"]
MetadataKind = Literal["jsonl", "parquet"]
SidecarSuffix = Literal[".txt", ".caption"]

_format = partial(setting, panel=FORMAT)
_texts = partial(setting, panel=TEXTS)
_images = partial(setting, panel=IMAGES)
_ids = partial(setting, panel=IDS)
_checkpoint = partial(setting, panel=CHECKPOINTS)


@dataclass(frozen=True)
class ConversionOptions(OptionGroup):
    """What is converted into what."""

    sources: tuple[str, ...] = setting(
        (),
        positional=True,
        metavar="SRC...",
        help="Files, folders or globs in quotes, whose rows follow one another, or one checkpoint.",
        panel=FORMAT,
    )
    destination: str = setting(
        "", positional=True, metavar="DST", help="What they become.", panel=FORMAT
    )
    overwrite: bool = setting(False, help="Replace OUT if it is there.", panel=OUTPUT)


@dataclass(frozen=True)
class ConvertOptions(ConversionOptions):
    """How results are read and written."""

    read_as: str | None = _format(
        None,
        flag="--from",
        metavar="FORMAT",
        help="What SRC is, where its path does not tell: {readable_formats}.",
    )
    write_as: str | None = _format(
        None,
        flag="--to",
        metavar="FORMAT",
        help=f"What DST becomes, where its path does not tell: those of {option('read_as')}, "
        "{write_only_formats}.",
    )
    shard_size: int | None = _format(
        None,
        minimum=1,
        metavar="N",
        help="webdataset: samples a tar \\[default: 10000]; clip-retrieval: vectors a file "
        "\\[default: all].",
    )
    text_column: str | None = _texts(
        None,
        metavar="NAME",
        default_help="caption, or answer in results of ask",
        help="The column of texts.",
    )
    prefix: str = _texts("", metavar="TEXT", help="sidecar: text before each caption.")
    suffix: str = _texts("", metavar="TEXT", help="sidecar: text after each caption.")
    sidecar_suffix: SidecarSuffix | None = _texts(
        None, default_help=".txt; when read, either", help="sidecar: the suffix of its files."
    )
    image_root: str | None = _images(
        None,
        metavar="DIR",
        help="The folder file_name is relative to, for formats that take images along.",
    )
    images: ImagesMode | None = _images(
        None,
        default_help="link; none where DST is the folder of the images",
        help="imagefolder: how the images get into DST.",
    )
    metadata: MetadataKind = _images("jsonl", help="imagefolder: the kind of its metadata file.")
    id_column: str | None = _ids(
        None,
        metavar="NAME",
        default_help="coco: the last number in file_name; vqa: question_id",
        help="The column that holds the ids.",
    )
    id_map: str | None = _ids(
        None,
        metavar="FILE",
        help="Ids of file names: a JSON object, a CSV table with file_name and id, or COCO "
        "annotations.",
    )
    annotations: str | None = _ids(
        None,
        metavar="FILE",
        help="COCO annotations or VQA questions that the results have to match one to one.",
    )


@dataclass(frozen=True)
class CheckpointOptions(ConversionOptions):
    """How a checkpoint is read and written."""

    language_model: str | None = _checkpoint(
        None,
        metavar="MODEL",
        help="LAVIS: OPT or Flan-T5, which its files do not hold; for retrieval BERT, whose "
        "tokenizer it takes. A directory or hub id.",
    )
    vision_weights: str | None = _checkpoint(
        None,
        metavar="FILE",
        help="LAVIS: eva_vit_g.pth, for files that hold no vision encoder.",
    )
    like: str | None = _checkpoint(
        None,
        metavar="MODEL",
        default_help="the released model with the same shapes",
        help="LAVIS: a BLIP-2 whose settings, tokenizer and whatever else is missing are taken.",
    )
    dtype: Dtype = _checkpoint("auto", help=DTYPE_HELP)
    quantize: Literal["int8"] | None = _checkpoint(None, help=QUANTIZE_HELP)
    max_shard_size: str = _checkpoint(
        "5GB",  # as transformers' ``save_pretrained``
        metavar="SIZE",
        help="Largest weight file, such as 2GB.",
    )
    check: bool = _checkpoint(False, help="Compare the result with the source, and print it.")

    @property
    def source(self) -> str:
        """The checkpoint. Raises ``OptionError`` when there are several."""
        if len(self.sources) != 1:
            raise OptionError(
                "sources",
                f"Checkpoints are converted one at a time, and {len(self.sources)} were given",
                "name one, and last what it becomes",
            )
        return self.sources[0]
