"""Assembles a model in transformers' layout from the separate files of LAVIS.

A checkpoint of LAVIS holds what was trained. The vision encoder may be in ``eva_vit_g.pth``; the
language model and the tokenizer are always elsewhere. Settings are those of the released checkpoint
with the same shapes, or of the model that the option ``like`` names.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from blip2cli.convert.checkpoints import huggingface as hf
from blip2cli.convert.checkpoints.language_model import Language, find_language, pad_vocabulary
from blip2cli.convert.checkpoints.lavis_file import (
    LANGUAGE_MODEL,
    PRE_NORM,
    VISION_MODEL,
    LavisFile,
    read_lavis,
    read_vision,
    resize_positions,
)
from blip2cli.convert.checkpoints.released import VISION_G, Released, Settings, identify
from blip2cli.convert.examples import listed
from blip2cli.errors import ModelError, OptionError, option
from blip2cli.model.checkpoint.lazy_weights import Weight, Weights
from blip2cli.model.checkpoint.resolve import resolve
from blip2cli.model.checkpoint.weight_files import Checkpoint
from blip2cli.model.families import RETRIEVAL, Family
from blip2cli.options import CheckpointOptions

POSITIONS = "vision_model.embeddings.position_embedding"
_WORDS = "google-bert/bert-base-uncased"  # as LAVIS has it in its code
_VISION_PREFIXES = ("vision_model.embeddings.", "vision_model.pre_layernorm.", VISION_MODEL)


@dataclass
class Assembled:
    """A model in transformers' layout, ready to be written."""

    kind: Family
    config: Settings
    weights: Weights
    write_small_files: Callable[[Path], None]  # all beside configuration and weights
    notes: list[str] = field(default_factory=list)
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)  # to round merged weights to


def assemble(options: CheckpointOptions) -> Assembled:
    """Assemble the model of a checkpoint of LAVIS. Raises ModelError naming what is missing."""
    file = read_lavis(Path(options.source).expanduser())
    if options.qformer_tokenizer is not None and not file.model_type.instructed:
        raise OptionError(
            "qformer_tokenizer",
            f"{option('qformer_tokenizer')} is for an InstructBLIP, and {file.path} is none",
            "leave it out",
        )
    weights, dropped = file.renamed()
    settings = (
        _LikeModel(resolve(options.like), file)
        if options.like is not None
        else _LikeReleased(file, weights, options)
    )
    pixels = _image_size(weights, file, settings)
    if "query_tokens" in weights:
        settings.config["num_query_tokens"] = weights["query_tokens"].shape[1]
    settings.config["vision_config"] = settings.config["vision_config"] | {"image_size": pixels}
    notes = [f"Read as LAVIS's {settings.name}."]
    if settings.config["vision_config"].get("pre_layernorm"):
        notes.append("Only blip2cli runs it: transformers' BLIP-2 has no place for CLIP's ViT-L.")
    if dropped:
        notes.append(f"Left out, as transformers has no place for it: {listed(dropped)}.")
    weights = _with_vision(weights, options, settings, pixels)
    if PRE_NORM in weights and not settings.config["vision_config"].get("pre_layernorm"):
        raise ModelError(
            "like",
            f"{options.source} has CLIP's ViT-L, and {settings.name} another vision encoder",
            f"leave {option('like')} out, or name a model with ViT-L",
        )
    if file.kind.writes:
        weights = _with_language(weights, options, settings, file.kind)
    weights = hf.match_config(
        settings.config, file.kind, weights, f"{options.source} with what was added"
    )
    settings.config.setdefault("dtype", str(hf.common_dtype(weights)).removeprefix("torch."))
    return Assembled(file.kind, settings.config, weights, settings.write_small_files, notes)


class _Settings(ABC):
    """The settings of the new model, and where the weights are that the file lacks."""

    name: str
    config: Settings
    vision_remedy: str  # where to find the vision encoder
    language_remedy: str
    language: Language | None = None

    @property
    def patch(self) -> int:
        """The width of a patch in pixels."""
        return int(self.config["vision_config"].get("patch_size", 14))

    def weights(self, prefixes: tuple[str, ...]) -> Weights:
        """The weights with these prefixes, if the settings come with any."""
        return {}

    @abstractmethod
    def write_small_files(self, folder: Path) -> None:
        """Write all but ``config.json`` and the weights."""


class _LikeReleased(_Settings):
    """Settings of a released checkpoint; the tokenizer is that of the language model."""

    def __init__(self, file: LavisFile, weights: Weights, options: CheckpointOptions) -> None:
        released = _released(file, weights)
        self.name = f"{released.model} {released.type}"
        self.config = released.config(released.image_size, 32)
        like = f", or {option('like')} {released.hub}" if released.hub is not None else ""
        self.vision_remedy = f"add {option('vision_weights')} {released.vision_file}{like}"
        self.language_remedy = f"add {option('language_model')} {released.language_model}{like}"
        if options.language_model is None:
            what = "language model and no tokenizer" if file.kind.writes else "tokenizer"
            raise ModelError("language_model", f"{file.path} holds no {what}", self.language_remedy)
        self.language = find_language(options.language_model, file.kind)
        self.words = None  # the tokenizer of a Q-Former that reads prompts
        if file.model_type.instructed:
            words = options.qformer_tokenizer or _WORDS
            self.words = find_language(words, RETRIEVAL, "qformer_tokenizer")
        self.kind = file.kind

    def write_small_files(self, folder: Path) -> None:
        """Write tokenizer, processor and generation settings."""
        assert self.language is not None
        vision = self.config["vision_config"]
        token = hf.write_processor(
            self.language.tokenizer(),
            vision["image_size"],
            self.config["num_query_tokens"],
            folder,
            None if self.words is None else self.words.tokenizer(),
        )
        expected = self.config["image_token_index"]
        if token != expected:
            raise ModelError(
                "language_model",
                f"the tokenizer in {self.language.path} has {token} tokens, and {self.name} was "
                f"trained with {expected}",
                "give the language model that it was trained with",
            )
        if self.kind.writes:
            hf.write_generation_config(self.config, folder)


class _LikeModel(_Settings):
    """Settings, tokenizer and missing weights of another model of transformers."""

    def __init__(self, checkpoint: Checkpoint, file: LavisFile) -> None:
        kind = file.kind
        self.checkpoint = checkpoint
        self.config = dict(checkpoint.config)
        self.config.setdefault("vision_config", {})
        self.config.setdefault("num_query_tokens", 32)  # transformers' own default
        if "torch_dtype" in self.config:
            self.config.setdefault("dtype", self.config["torch_dtype"])
        self.name = f"{kind.name} model, like {checkpoint.path.name}"
        self.vision_remedy = f"add {option('vision_weights')} eva_vit_g.pth"
        self.language_remedy = f"add {option('language_model')} DIR"
        found = checkpoint.family
        if found != kind:
            raise ModelError(
                "like",
                f"{option('like')} {checkpoint.path} is a model {found.label}, and the checkpoint "
                f"one {kind.label}",
                "name a model of the same kind",
            )
        if checkpoint.model_type != file.model_type:
            raise ModelError(
                "like",
                f"{option('like')} {checkpoint.path} is of the kind {checkpoint.model_type.label}, "
                f"and the checkpoint of the kind {file.model_type.label}",
                "name a model of the same kind",
            )
        self._weights: Weights | None = None

    def weights(self, prefixes: tuple[str, ...]) -> Weights:
        """The weights with these prefixes."""
        if self._weights is None:
            self._weights = hf.read_model(self.checkpoint)
        return {name: w for name, w in self._weights.items() if name.startswith(prefixes)}

    def write_small_files(self, folder: Path) -> None:
        """Copy the files of the other model, with the image size of this one."""
        hf.copy_small_files(self.checkpoint.path, folder)
        hf.fit_processor(
            folder, self.config["vision_config"]["image_size"], self.config["num_query_tokens"]
        )


def _released(file: LavisFile, weights: Weights) -> Released:
    norm = weights.get("vision_model.post_layernorm.weight")
    projection = weights.get("language_projection.weight")
    vision = norm.shape[0] if norm is not None else 0
    width = projection.shape[0] if projection is not None else 0
    positions = weights.get(POSITIONS)
    pixels = file.image_size if positions is None else _pixels(positions, VISION_G["patch_size"])
    found = identify(file.kind, vision, width, pixels, file.model_type)
    if found is None:
        raise ModelError(
            "like",
            f"{file.path} has the widths of no released {file.model_type.label} (vision {vision}"
            f"{f', language model {width}' if width else ''})",
            f"name a model in transformers' layout that has them with {option('like')}",
        )
    return found


def _image_size(weights: Weights, file: LavisFile, settings: _Settings) -> int:
    """The side of an image in pixels: by the position embeddings, else as in the training."""
    positions = weights.get(POSITIONS)
    if positions is not None:
        return _pixels(positions, settings.patch)
    return file.image_size or int(settings.config["vision_config"].get("image_size", 224))


def _pixels(positions: Weight, patch: int) -> int:
    return math.isqrt(positions.shape[1] - 1) * patch


def _with_vision(
    weights: Weights, options: CheckpointOptions, settings: _Settings, pixels: int
) -> Weights:
    if any(name.startswith(VISION_MODEL) for name in weights):
        return weights
    if options.vision_weights is not None:
        depth = int(settings.config["vision_config"].get("num_hidden_layers", 39))
        added = read_vision(Path(options.vision_weights).expanduser(), depth)
    else:
        added = settings.weights(_VISION_PREFIXES)
    if not added:
        problem = f"{options.source} holds no vision encoder"
        raise ModelError("vision_weights", problem, settings.vision_remedy)
    positions: Weight | None = added.get(POSITIONS)
    if positions is not None:
        added = added | {POSITIONS: resize_positions(positions, pixels // settings.patch)}
    return weights | added


def _with_language(
    weights: Weights, options: CheckpointOptions, settings: _Settings, kind: Family
) -> Weights:
    if not any(name.startswith(LANGUAGE_MODEL) for name in weights):
        language = settings.language
        if options.language_model is not None and language is None:
            language = find_language(options.language_model, kind)
        added = language.weights() if language is not None else settings.weights((LANGUAGE_MODEL,))
        if not added:
            problem = f"{options.source} holds no language model"
            raise ModelError("language_model", problem, settings.language_remedy)
        weights = weights | added
    rows = settings.config["text_config"].get("vocab_size", 50272)
    return pad_vocabulary(weights, kind, int(rows))
