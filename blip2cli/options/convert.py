"""The options of conversions: of results, and of checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from blip2cli.errors import OptionError, option
from blip2cli.options.columns import ColumnOptions
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
from blip2cli.options.model import ADAPTER_HELP, DTYPE_HELP, QUANTIZE_HELP, Dtype
from blip2cli.options.run import (
    IMAGE_ROOT_HELP,
    MOVED_SOURCE_HELP,
    OVERWRITE_HELP,
    RUN_SUMMARY_HELP,
)

ImagesMode = Literal["link", "copy", "none"]
MetadataKind = Literal["jsonl", "parquet"]
SidecarSuffix = Literal[".txt", ".caption"]
RowKind = Literal["caption", "ask", "embed", "embed-texts", "errors"]

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
        "Files, folders or globs in quotes, whose rows follow one another, or one checkpoint. "
        "Outputs of all shares are merged in the order of the source.",
        positional=True,
        metavar="SRC...",
        panel=FORMAT,
        brief="Files, folders or globs in quotes; or one checkpoint.",
    )
    destination: str = setting(
        "", "What they become.", positional=True, metavar="DST", panel=FORMAT, brief=True
    )
    overwrite: bool = setting(False, OVERWRITE_HELP, panel=OUTPUT, brief=True)


@dataclass(frozen=True)
class ConvertOptions(ConversionOptions, ColumnOptions):
    """How results are read and written."""

    read_as: str | None = _format(
        None,
        "What SRC is, where its path does not tell: {readable_formats}.",
        flag="--from",
        metavar="FORMAT",
        offers="read formats",
        brief="What SRC is, where its path does not tell.",
    )
    write_as: str | None = _format(
        None,
        f"What DST becomes, where its path does not tell: those of {option('read_as')}, "
        "{write_only_formats}.",
        flag="--to",
        metavar="FORMAT",
        offers="written formats",
        brief="What DST becomes, where its path does not tell: {readable_formats}, "
        "{write_only_formats}.",
    )
    salvage: bool = _format(
        False,
        "jsonl, parquet, parts: leave out what is damaged in SRC, and say how much that is.",
        brief="Leave out what is damaged in SRC.",
    )
    allow_missing: bool = _format(
        False, "Merge shares of an output though some are missing or unfinished."
    )
    moved_source: bool = _format(False, MOVED_SOURCE_HELP)
    shard_size: int | None = _format(
        None,
        "webdataset: samples a tar \\[default: 10000]; clip-retrieval: vectors a file "
        "\\[default: all]; parts, dataset: rows a file \\[default: 100000, 500 MB].",
        metavar="N",
        minimum=1,
    )
    prefix: str = _texts("", "sidecar: text before each caption.", metavar="TEXT")
    suffix: str = _texts("", "sidecar: text after each caption.", metavar="TEXT")
    sidecar_suffix: SidecarSuffix | None = _texts(
        None, "sidecar: the suffix of its files.", default_help=".txt; when read, either"
    )
    image_root: str | None = _images(
        None,
        IMAGE_ROOT_HELP,
        metavar="DIR",
        brief=True,
    )
    images: ImagesMode | None = _images(
        None,
        "imagefolder: how the images get into DST.",
        default_help="link; none where DST is the folder of the images",
        brief="imagefolder: how the images get into DST: {choices}.",
    )
    metadata: MetadataKind = _images("jsonl", "imagefolder: the kind of its metadata file.")
    license: str | None = _format(
        None, "dataset: the licence in its card, such as cc-by-4.0.", metavar="ID"
    )
    run_summary: str | None = _format(None, RUN_SUMMARY_HELP, metavar="FILE")
    image_url: str | None = _format(
        None,
        "label-studio: what stands before the name in the address of an image.",
        metavar="PREFIX",
        default_help="/data/local-files/?d=",
    )
    annotations: str | None = _ids(
        None,
        "COCO annotations or VQA questions that the results have to match one to one.",
        metavar="FILE",
    )


@dataclass(frozen=True)
class CheckpointOptions(ConversionOptions):
    """How a checkpoint is read and written."""

    language_model: str | None = _checkpoint(
        None,
        "LAVIS: OPT, Flan-T5 or Vicuna, which its files do not hold; for retrieval BERT, whose "
        "tokenizer it takes. A directory or hub id.",
        metavar="MODEL",
        brief="LAVIS: its language model, a directory or hub id.",
        offers="checkpoints",
    )
    qformer_tokenizer: str | None = _checkpoint(
        None,
        "LAVIS: BERT, with whose tokenizer the Q-Former of an InstructBLIP reads prompts. A "
        "directory or hub id.",
        metavar="MODEL",
        default_help="google-bert/bert-base-uncased",
        offers="checkpoints",
    )
    vision_weights: str | None = _checkpoint(
        None,
        "LAVIS: eva_vit_g.pth (or clip_vit_L.pth), for files that hold no vision encoder.",
        metavar="FILE",
    )
    like: str | None = _checkpoint(
        None,
        "LAVIS: a BLIP-2 whose settings, tokenizer and whatever else is missing are taken.",
        metavar="MODEL",
        default_help="the released model with the same shapes",
        offers="checkpoints",
    )
    adapter: tuple[str, ...] = _checkpoint(
        (),
        ADAPTER_HELP,
        metavar="NAME",
        brief="An adapter of PEFT (LoRA), merged into the model.",
        offers="checkpoints",
    )
    dtype: Dtype = _checkpoint("auto", DTYPE_HELP, brief="Of checkpoints: {choices}.")
    quantize: Literal["int8"] | None = _checkpoint(
        None, QUANTIZE_HELP, brief="Linear layers in eight bits: int8."
    )
    max_shard_size: str = _checkpoint("5GB", "Largest weight file, such as 2GB.", metavar="SIZE")
    check: bool = _checkpoint(
        False, "Compare the result with the source, and print it.", brief=True
    )

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


@dataclass(frozen=True)
class VerifyOptions(OptionGroup):
    """What is verified."""

    outputs: tuple[str, ...] = setting(
        (),
        "Outputs of a run, or what they were converted into; globs in quotes.",
        positional=True,
        metavar="OUT...",
        panel=FORMAT,
        brief=True,
    )
    json: bool = setting(False, "Print JSON for other programs.", panel=OUTPUT, brief=True)


@dataclass(frozen=True)
class SchemaOptions(OptionGroup):
    """Which rows are meant."""

    rows: RowKind = setting(
        "caption",
        "Which rows: those of caption, ask, embed, of embed without images (embed-texts), or of a "
        "list of failures (errors).",
        positional=True,
        metavar="ROWS",
        panel=FORMAT,
        brief="{choices}.",
    )
