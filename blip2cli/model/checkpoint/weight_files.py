"""Checkpoint directories, inspected without torch or transformers.

The layout is the Hugging Face one: ``config.json`` plus one weight file or an index and its
shards. Safetensors are preferred; pickled ``.bin`` files are taken only where there is nothing
else, and are later read with ``weights_only=True``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.config import Blip2Config, read_config, sides
from blip2cli.model.checkpoint.embedded import embedded_root
from blip2cli.model.checkpoint.foreign_files import (
    ADAPTER_FILES,
    OTHER_WEIGHTS,
    check_adapter,
    check_pointer,
)
from blip2cli.model.checkpoint.model_types import MODEL_TYPES, ModelType
from blip2cli.model.checkpoint.other_models import check_kind, unknown_language_model
from blip2cli.model.families import RETRIEVAL, WRITERS, Family, language_family

if TYPE_CHECKING:
    from blip2cli.images.preprocess import PixelSpec
    from blip2cli.model.checkpoint.adapter import Adapter

# In order of preference: single file, then its index of shards.
WEIGHT_FILES = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    # Int8 weights, which other programs must not take for plain ones, see ``int8_weights``.
    ("model.int8.safetensors", "model.int8.safetensors.index.json"),
)
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model", "vocab.txt")
# The tokenizer of a Q-Former that reads prompts, in a directory of its own.
QFORMER_TOKENIZER = "qformer_tokenizer"
GENERATION_CLASSES = (*(family.architecture for family in WRITERS), "Blip2Model")
_HEADER_LIMIT = 100 << 20  # bytes; the safetensors library reads no longer headers either
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Checkpoint:
    """A local BLIP-2 checkpoint, inspected and found complete."""

    path: Path
    config: dict[str, Any]  # config.json
    family: Family
    weights: tuple[Path, ...]  # the file or the shards
    image_processor: dict[str, Any]  # the image processor's settings
    adapters: tuple[Adapter, ...] = ()  # what is merged into the weights, in order

    def __str__(self) -> str:
        """Its directory, and its adapters, as messages name them."""
        return " with ".join((str(self.path), *(adapter.name for adapter in self.adapters)))

    @property
    def safetensors(self) -> bool:
        """True when the weights are safetensors rather than pickles."""
        return self.weights[0].suffix == ".safetensors"

    @property
    def model_type(self) -> ModelType:
        """Which kind of model it is."""
        return MODEL_TYPES[self.config["model_type"]]

    @cached_property
    def weight_bytes(self) -> int:
        """Size of all weight files on disk, in bytes."""
        return sum(file.stat().st_size for file in self.weights)

    @cached_property
    def model_config(self) -> Blip2Config:
        """``config`` with defaults filled in. Raises ModelError for what cannot be one."""
        return read_config(self.config, self.family)

    @cached_property
    def pixel_spec(self) -> PixelSpec:
        """The pixel values that the model reads. Imports numpy and Pillow.

        Raises ModelError when the image processor is none of BLIP's, or resizes to another size
        than the vision encoder reads: transformers would run it and generate other texts, without
        a warning.
        """
        from blip2cli.images.preprocess import PixelSpec

        spec = PixelSpec.from_processor_config(self.image_processor)
        height, width = sides(self.model_config.vision_config)
        if (height, width) != (spec.height, spec.width):
            raise ModelError(
                None,
                f"{self.path} has an image processor for {spec.height}x{spec.width} pixels, but "
                f"its vision encoder reads {height}x{width}: set size in "
                "preprocessor_config.json to image_size in config.json",
            )
        return spec


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ModelError naming the file when it cannot be read as one."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(None, f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(None, f"{file} is not valid JSON", "fetch that file again") from error
    if not isinstance(value, dict):
        raise ModelError(None, f"{file} does not hold a JSON object", "fetch that file again")
    return value


def inspect_checkpoint(path: Path, adapter_beside: bool = False) -> Checkpoint:
    """Inspect a directory; with ``adapter_beside`` it may hold an adapter as well.

    Raises ModelError, saying what is missing, when it is not a complete BLIP-2 checkpoint.
    """
    if not adapter_beside:
        check_adapter(
            str(path), [name for name in (*ADAPTER_FILES, "config.json") if (path / name).is_file()]
        )
    if not (path / "config.json").is_file():
        raise ModelError(
            None,
            f"{path} is not a model directory: it has no config.json",
            "give a directory written by save_pretrained, a hub id, or tiny",
        )
    config = read_json(path / "config.json")
    check_kind(str(path), config)
    for name in ("vision_config", "qformer_config", "text_config"):
        if not isinstance(config.get(name) or {}, dict):
            raise ModelError(
                None,
                f"{path / 'config.json'} holds no object under {name}",
                "fetch that file again",
            )
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            None,
            f"{path} has no tokenizer ({', '.join(TOKENIZER_FILES)})",
            "copy the tokenizer files of the model it was trained from",
        )
    for name in TOKENIZER_FILES:
        check_pointer(path / name)
    if MODEL_TYPES[config["model_type"]].instructed:
        _check_qformer_tokenizer(path)
    weights = weight_files(path)
    family = _family(path, config, weights)
    return Checkpoint(path, config, family, weights, _image_processor(path))


def _check_qformer_tokenizer(path: Path) -> None:
    """Raise ModelError where the tokenizer of a Q-Former that reads prompts is missing."""
    if not any((path / QFORMER_TOKENIZER / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            None,
            f"{path} lacks the tokenizer of its Q-Former ({QFORMER_TOKENIZER}/tokenizer.json)",
            "copy that directory from the model it was trained from",
        )
    for name in TOKENIZER_FILES:
        check_pointer(path / QFORMER_TOKENIZER / name)


def _image_processor(path: Path) -> dict[str, Any]:
    """The image processor's settings, from whichever file holds them."""
    for name in PROCESSOR_FILES:
        file = path / name
        if file.is_file():
            settings = read_json(file)
            inner = settings.get("image_processor")
            settings = inner if isinstance(inner, dict) else settings
            if "image_mean" in settings or "size" in settings:
                return settings
    raise ModelError(
        None,
        f"{path} has no image processor settings (preprocessor_config.json)",
        "copy that file from the model it was trained from",
    )


def _family(path: Path, config: dict[str, Any], weights: Sequence[Path]) -> Family:
    instructed = MODEL_TYPES[config["model_type"]].instructed
    if not instructed and _is_retrieval_model(path, config, weights):
        return RETRIEVAL  # its text_config, if any, describes no weights of it
    text = config.get("text_config") or {}
    family = language_family(text)
    if family is None:
        raise unknown_language_model(str(path), text["model_type"])
    return family


def _classes(config: dict[str, Any]) -> list[str]:
    """``architectures``: the names of transformers' classes that the model was saved from."""
    names = config.get("architectures")
    return [str(name) for name in names] if isinstance(names, list) else []


def _is_retrieval_model(path: Path, config: dict[str, Any], weights: Sequence[Path]) -> bool:
    """Whether these are the weights of a retrieval model.

    ``architectures`` decides where it is written; else the names of the weights do, and for a
    pickle, whose names cannot be read safely here, whether the Q-Former reads text.
    """
    classes = _classes(config)
    if RETRIEVAL.architecture in classes:
        return True
    if any(name in classes for name in GENERATION_CLASSES):
        return False
    names = _weight_names(path, weights)
    if names is not None:
        return RETRIEVAL.lavis_key in names
    return bool((config.get("qformer_config") or {}).get("use_qformer_text_input"))


def _weight_names(path: Path, weights: Sequence[Path]) -> Collection[str] | None:
    """The names of the weights, from an index or a safetensors header; None where neither is."""
    for single, index in WEIGHT_FILES:
        if (path / single).is_file():
            break
        if (path / index).is_file():
            return read_json(path / index).get("weight_map") or {}
    if weights[0].suffix != ".safetensors":
        return None
    with weights[0].open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(min(length, _HEADER_LIMIT)))
        except (ValueError, RecursionError):
            return None  # damaged: loading says so, naming the file
    return header if isinstance(header, dict) else None


def weight_files(path: Path) -> tuple[Path, ...]:
    """The file or the shards that hold the weights. Raises ModelError when any is missing."""
    for single, index in WEIGHT_FILES:
        if (path / single).is_file():
            check_pointer(path / single)
            return (path / single,)
        if (path / index).is_file():
            shards = _shards(path / index)
            missing = [shard.name for shard in shards if not shard.is_file()]
            if missing:
                raise ModelError(
                    None,
                    f"{path} is incomplete: {', '.join(missing)} named in {index} "
                    f"{'is' if len(missing) == 1 else 'are'} missing",
                    "fetch the model again",
                )
            for shard in shards:
                check_pointer(shard)
            return shards
    names = ", ".join(name for pair in WEIGHT_FILES for name in pair)
    others = [file.name for file in path.iterdir() if file.suffix in OTHER_WEIGHTS]
    if others:
        raise ModelError(
            None,
            f"{path} has no weights under a name that is read ({names}), but {min(others)}",
            "save the model with save_pretrained; or call a state dict pytorch_model.bin",
        )
    raise ModelError(None, f"{path} has no weights (looked for {names})", "fetch the model again")


def _shards(index: Path) -> tuple[Path, ...]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(
            None, f"{index} does not say which file holds which weight", "fetch it again"
        )
    files = sorted({str(name) for name in names.values()})
    if index.parent.resolve().parent == embedded_root().resolve():
        # The embedded models share files: these names lead to one beside their directory.
        return tuple(Path(os.path.normpath(index.parent / name)) for name in files)
    # A shard's name comes from a downloaded file: it may not lead out of the directory.
    return tuple(index.parent / name for name in sorted({Path(file).name for file in files}))
