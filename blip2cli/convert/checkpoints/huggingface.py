"""Models in transformers' layout: the weights of a configuration, and the files beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from blip2cli.convert.checkpoints.released import Settings
from blip2cli.convert.examples import listed
from blip2cli.errors import ModelError, option
from blip2cli.model.checkpoint.config import read_config
from blip2cli.model.checkpoint.hub import SMALL_FILES
from blip2cli.model.checkpoint.lazy_weights import Weights
from blip2cli.model.checkpoint.model_types import BLIP_2, INSTRUCT_BLIP, MODEL_TYPES
from blip2cli.model.checkpoint.weight_files import PROCESSOR_FILES, Checkpoint, read_json
from blip2cli.model.families import Family
from blip2cli.model.loading.empty_model import empty_model
from blip2cli.model.loading.quantized_checkpoints import quantizer_name
from blip2cli.model.loading.stored import check_weights, stored_weights
from blip2cli.system.library_logging import silence_libraries


def read_model(checkpoint: Checkpoint, notes: list[str] | None = None) -> Weights:
    """The weights of a model of transformers that its configuration has, in float32 where they
    are stored quantized; what is left out is added to ``notes``. Raises ModelError."""
    weights, remarks = stored_weights(checkpoint)
    if any(own in weights for _, own in checkpoint.family.separate_words):
        raise second_embedding(checkpoint)
    if notes is not None:
        notes += [f"{remark[0].upper()}{remark[1:]}." for remark in remarks]
    where = str(checkpoint.path)
    return match_config(checkpoint.config, checkpoint.family, weights, where, notes)


def second_embedding(checkpoint: Checkpoint) -> ModelError:
    """The error for an adapter that changed one of two layers which share a matrix, where
    transformers has no place for a second."""
    return ModelError(
        "adapter",
        f"{checkpoint} reads and writes with different word embeddings, of which transformers has "
        f"one {checkpoint.family.label}",
        f"run it with {option('adapter')}, without converting it",
    )


def match_config(
    config: Settings, kind: Family, weights: Weights, where: str, notes: list[str] | None = None
) -> Weights:
    """The weights in the model's own order, if they are those of ``config``.

    A weight that is tied to another, and the same, is left out, as ``save_pretrained`` does. What
    the model has no place for is added to ``notes``. Raises ModelError naming what is missing or
    of another shape, and for settings with which no model can be run.
    """
    expected, tied = expected_weights(config, kind)
    empty_model(read_config(config, kind), where)
    for name, other in tied.items():  # either may stand for both
        if name in weights and other not in weights:
            weights = weights | {other: weights[name]}
    unused = check_weights(where, weights, expected, kind, tied, quantizer_name(config))
    if unused and notes is not None:
        notes.append(f"Left out, as the model has no place for it: {listed(unused)}.")
    double = {name for name in tied if name in weights and _same(weights, name, tied[name])}
    return {name: weights[name] for name in expected if name in weights and name not in double}


def expected_weights(
    config: Settings, kind: Family
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """The name and shape of each weight, and which of them is tied to which. Raises ModelError."""
    model = meta_model(config, kind)
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    vision = config.get("vision_config") or {}
    if vision.get("pre_layernorm"):  # CLIP's ViT-L
        for own in ("weight", "bias"):
            shapes[f"vision_model.pre_layernorm.{own}"] = (vision["hidden_size"],)
    return shapes, dict(model.all_tied_weights_keys)


def meta_model(config: Settings, kind: Family) -> Any:
    """transformers' model of a configuration, on the meta device: without memory for weights.

    Raises ModelError when the configuration is none of such a model.
    """
    found = MODEL_TYPES.get(str(config.get("model_type")), BLIP_2)
    build, settings = found.model_class(kind), found.config_class()
    with silence_libraries(), torch.device("meta"):
        try:
            model = build(settings(**config))
        except Exception as error:  # the strict configuration's errors have no common root
            lines = str(error).strip().splitlines() or [type(error).__name__]
            problem = f"config.json describes no {found.label} model ({lines[0]})"
            raise ModelError(None, problem) from error
    return model


def copy_small_files(source: Path, folder: Path) -> None:
    """Copy configuration, tokenizer, processor and generation settings."""
    for name in SMALL_FILES:
        if (source / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, folder / name)


def write_config(config: Settings, folder: Path, dtype: torch.dtype | None) -> None:
    """Write ``config.json``; with ``dtype`` that precision is stored in it."""
    if dtype is not None:
        config = {key: value for key, value in config.items() if key != "torch_dtype"}
        config["dtype"] = str(dtype).removeprefix("torch.")
        for part in ("vision_config", "qformer_config", "text_config"):
            inner = config.get(part) or {}
            config[part] = {k: v for k, v in inner.items() if k not in ("dtype", "torch_dtype")}
    write_json(folder / "config.json", config)


def common_dtype(weights: Weights) -> torch.dtype:
    """The precision that all weights share, else float32, which holds them all."""
    kinds = {weight.dtype for weight in weights.values() if weight.dtype.is_floating_point}
    return kinds.pop() if len(kinds) == 1 else torch.float32


def write_generation_config(config: Settings, folder: Path) -> None:
    """Write the ids of special tokens, as the published models have them."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    text = config["text_config"]
    tokens = {name: text[name] for name in names if name in text}
    write_json(folder / "generation_config.json", {"_from_model_config": True, **tokens})


def write_processor(
    tokenizer: Any, image_size: int, queries: int, folder: Path, words: Any = None
) -> int:
    """Write tokenizer and processor, with BLIP's image steps at ``image_size`` pixels.

    ``words`` is the tokenizer of a Q-Former that reads prompts. Returns the id of the token
    ``<image>``, which the processor adds.
    """
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    with silence_libraries():
        images = BlipImageProcessorPil(size={"height": image_size, "width": image_size})
        build = (BLIP_2 if words is None else INSTRUCT_BLIP).processor_class()
        tokenizers = (tokenizer,) if words is None else (tokenizer, words)
        processor = build(images, *tokenizers, num_query_tokens=queries)
        processor.save_pretrained(folder)
        images.save_pretrained(folder)  # a file of its own is what older releases look for
    return int(processor.tokenizer.convert_tokens_to_ids("<image>"))


def fit_processor(folder: Path, image_size: int, queries: int) -> None:
    """Set the size in pixels and the number of query tokens in copied settings of a processor.

    Settings with these values already are left as they are, to the byte.
    """
    size = {"height": image_size, "width": image_size}
    for name in PROCESSOR_FILES:
        file = folder / name
        if not file.is_file():
            continue
        settings = read_json(file)
        before = json.dumps(settings)
        inner = settings.get("image_processor")
        images = inner if isinstance(inner, dict) else settings
        if "size" in images and images["size"] != image_size:
            images["size"] = size
        if settings.get("num_query_tokens") is not None:  # null in older models
            settings["num_query_tokens"] = queries
        if json.dumps(settings) != before:
            write_json(file, settings)


def write_json(file: Path, value: Settings) -> None:
    """Write a JSON object as transformers does."""
    file.write_text(
        json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _same(weights: Weights, name: str, other: str) -> bool:
    one, two = weights[name], weights.get(other)
    if two is None or (one.shape, one.dtype) != (two.shape, two.dtype):
        return False
    return torch.equal(one.load(), two.load())
