"""The frozen option objects: built once by the command line, passed whole to every room.

Defaults here are the defaults of the command line and of the Python API alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

DEFAULT_MODEL = "Salesforce/blip2-opt-2.7b"

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantize = Literal["int8", "int4"]  # what linear layers are rounded to
ErrorsMode = Literal["file", "inline"]
Norm = Literal["sum", "mean"]


@dataclass(frozen=True)
class SourceOptions:
    """Where images come from and which of them are wanted."""

    sources: tuple[str, ...]  # as typed: folders, files, globs, URLs, or "-" for paths on stdin
    include: tuple[str, ...] = ()  # glob patterns on file_name; empty means everything
    exclude: tuple[str, ...] = ()  # glob patterns on file_name; wins over include
    limit: int | None = None  # at most so many images, in source order
    nul: bool = False  # paths on stdin are separated by NUL instead of newline
    keep: tuple[str, ...] = ()  # columns of a manifest that are carried into the rows
    image_column: str | None = None  # the column of a table that holds the images, or their paths
    absolute_paths: bool = False  # manifests may name absolute paths, and ones outside their folder


@dataclass(frozen=True)
class ModelOptions:
    """Which weights, where and in which precision."""

    model: str = DEFAULT_MODEL  # hub id, local directory, or an embedded name such as "tiny"
    revision: str | None = None  # branch, tag or commit of a hub model
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", "mps"
    dtype: Dtype = "auto"
    quantize: Quantize | None = None
    compile: bool = False  # the image side runs as compiled code (``model.compiled``)


@dataclass(frozen=True)
class DecodeOptions:
    """How text is decoded. Greedy unless beams or a sampling option is given."""

    max_new_tokens: int = 30
    min_new_tokens: int = 0
    num_beams: int = 1
    num_return: int = 1  # texts kept per prompt, best first (--num-captions)
    temperature: float | None = None  # any of the three switches sampling on
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    seed: int = 0
    retry_degenerate: bool = False  # texts that are flagged are decoded once more, without repeats

    @property
    def sampling(self) -> bool:
        """True when text is drawn instead of taken greedily."""
        return any(v is not None for v in (self.temperature, self.top_p, self.top_k))


@dataclass(frozen=True)
class LoaderOptions:
    """How images are read and batched."""

    batch_size: int | None = None  # None: by the model and the memory (``model.batch``)
    workers: int | None = None  # DataLoader workers; None picks from the cores available
    image_timeout: float | None = None  # seconds one image may take to read and decode
    fast_decode: bool = False  # JPEGs no larger than the model needs: quicker, other pixels


@dataclass(frozen=True)
class OutputOptions:
    """Where rows go and what happens to what stands there already."""

    out: str | None = None  # path by suffix; None or "-" means JSONL on stdout
    overwrite: bool = False
    resume: bool = False  # go on with an output that is there, or start one
    retry_errors: bool = False  # with resume: images that failed before are tried again
    errors: ErrorsMode = "file"  # "inline" keeps failed images as rows with an error column
    summary: str | None = None  # JSON summary of the run is written here


@dataclass(frozen=True)
class LimitOptions:
    """When a run stops before its source ends."""

    max_duration: float | None = None  # seconds, counted from the start of the process
    max_errors: int | float | None = None  # so many images (int), or this share of them (float)


@dataclass(frozen=True)
class RunOptions:
    """Everything a run needs apart from its task."""

    source: SourceOptions
    model: ModelOptions = field(default_factory=ModelOptions)
    loader: LoaderOptions = field(default_factory=LoaderOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    limits: LimitOptions = field(default_factory=LimitOptions)
