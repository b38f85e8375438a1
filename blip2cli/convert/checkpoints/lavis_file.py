"""Reader and writer of LAVIS's own files: one ``.pth`` with ``{"model": state dict}``.

LAVIS saves what was trained (``runner_base.py``): never the language model, and the vision encoder
only where it was tuned. Its vision encoder has a bias for queries and one for values; transformers
has one for queries, keys and values, whose middle part is then zero.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from blip2cli.convert.checkpoints.lavis_names import (
    is_dropped,
    is_dropped_of_vision,
    to_lavis,
    to_transformers,
)
from blip2cli.convert.checkpoints.shards import check_finite
from blip2cli.errors import ModelError, option
from blip2cli.model.checkpoint.lazy_weights import Weight, Weights, read_pickle, tensors_of
from blip2cli.model.checkpoint.model_types import BLIP_2, INSTRUCT_BLIP, ModelType
from blip2cli.model.families import FAMILIES, OPT, RETRIEVAL, Family

POSITION_IDS = "Qformer.bert.embeddings.position_ids"
_WORDS = "Qformer.bert.embeddings.word_embeddings.weight"  # of a Q-Former that reads text
LANGUAGE_MODEL = "language_model."
VISION_MODEL = "vision_model.encoder."  # ln_vision, beside it, was trained in every checkpoint
_QKV_BIAS = re.compile(r"(vision_model\.encoder\.layers\.\d+\.self_attn\.)qkv\.bias")
_Q_BIAS = re.compile(r"(vision_model\.encoder\.layers\.\d+\.self_attn\.)q_bias")
PRE_NORM = "vision_model.pre_layernorm.weight"  # which only CLIP's ViT-L has


@dataclass
class LavisFile:
    """What a ``.pth`` holds, in LAVIS's names."""

    path: Path
    kind: Family
    model_type: ModelType
    weights: Weights
    image_size: int | None  # in pixels, as the training run's configuration says

    def renamed(self) -> tuple[Weights, list[str]]:
        """The weights in transformers' names, and the names of those it has no place for.

        Raises ModelError naming a weight that is in neither list.
        """
        weights: Weights = {}
        dropped: list[str] = []
        for name, weight in self.weights.items():
            new = to_transformers(name, self.kind, self.model_type)
            if new is not None:
                weights[new] = weight
            elif name == POSITION_IDS:  # 0, 1, 2, …: nothing is lost
                continue
            elif is_dropped(name):
                dropped.append(name)
            else:
                raise self._unknown(name)
        return _whole_vision(_join_qkv_bias(weights, self.path)), dropped

    def _unknown(self, name: str) -> ModelError:
        if name.startswith("Qformer.bert.") and to_transformers(name, RETRIEVAL) is not None:
            return ModelError(
                "sources",
                f"{self.path} has a part of a Q-Former that reads text ({name}), without {_WORDS}",
                "fetch the file again",
            )
        return ModelError(
            "sources",
            f"{self.path} holds {name}, which is no weight of LAVIS's BLIP-2",
            "nothing is left out silently, so remove it from the file if it does not matter",
        )


def read_lavis(path: Path) -> LavisFile:
    """Read a checkpoint of LAVIS. Raises ModelError that names what the file is instead."""
    found = read_pickle(path)
    tensors = tensors_of(found)
    if tensors is None:
        problem = f'{path} holds no weights of LAVIS ({{"model": state dict}})'
        raise ModelError("sources", problem)
    kind = _kind(path, tensors)
    return LavisFile(
        path,
        kind,
        INSTRUCT_BLIP if kind.writes and _WORDS in tensors else BLIP_2,
        {name: Weight.of(tensor) for name, tensor in tensors.items()},
        _image_size(found),
    )


def read_vision(path: Path, depth: int) -> Weights:
    """The vision encoder of ``eva_vit_g.pth`` or ``clip_vit_L.pth``, in transformers' names;
    ``depth`` blocks of it.

    Raises ModelError naming a weight that is unknown.
    """
    remedy = f"{option('vision_weights')} takes eva_vit_g.pth or clip_vit_L.pth"
    tensors = tensors_of(read_pickle(path))
    if tensors is None:
        raise ModelError("vision_weights", f"{path} holds no weights", remedy)
    weights: Weights = {}
    for name, tensor in tensors.items():
        new = to_transformers(f"visual_encoder.{name}", OPT)
        if is_dropped_of_vision(name, depth):
            continue
        if new is None:
            problem = f"{path} holds {name}, which is no weight of LAVIS's vision encoder"
            raise ModelError("vision_weights", problem, remedy)
        weights[new] = Weight.of(tensor)
    if not weights:
        raise ModelError("vision_weights", f"{path} holds no vision encoder of LAVIS", remedy)
    return _whole_vision(_join_qkv_bias(weights, path))


def _whole_vision(weights: Weights) -> Weights:
    """The weights, those of CLIP's ViT-L in the shapes of BLIP-2's vision encoder, whose patches
    have a bias."""
    if PRE_NORM not in weights:
        return weights
    embeddings = "vision_model.embeddings."
    made = dict(weights)
    for name, axes in (("class_embedding", 3), ("position_embedding", 3)):
        found = made.get(embeddings + name)
        if found is not None and len(found.shape) < axes:
            made[embeddings + name] = _reshaped(found, (1,) * (axes - len(found.shape)))
    patches = made.get(f"{embeddings}patch_embedding.weight")
    if patches is not None:
        bias = torch.zeros(patches.shape[0], dtype=patches.dtype)
        made[f"{embeddings}patch_embedding.bias"] = Weight.of(bias)
    return made


def _reshaped(weight: Weight, axes: tuple[int, ...]) -> Weight:
    shape = (*axes, *weight.shape)
    return Weight(shape, weight.dtype, lambda: weight.load().reshape(shape))


def resize_positions(positions: Weight, grid: int) -> Weight:
    """Position embeddings [1, 1 + G², D] for another grid of patches, bicubic, in float32.

    As ``interpolate_pos_embed`` of LAVIS's ``eva_vit.py``: the class token's stays.
    """
    before = math.isqrt(positions.shape[1] - 1)
    width = positions.shape[2]
    if before == grid:
        return positions

    def load() -> Tensor:
        old = positions.load().float()
        patches = old[:, 1:].reshape(1, before, before, width).permute(0, 3, 1, 2)
        patches = torch.nn.functional.interpolate(
            patches, size=(grid, grid), mode="bicubic", align_corners=False
        )
        return torch.cat((old[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)

    return Weight((1, 1 + grid * grid, width), torch.float32, load)


@dataclass
class LavisWeights:
    """A state dict in LAVIS's names, made of a model of transformers."""

    weights: Weights = field(default_factory=dict)
    language_model: bool = False  # one was left out
    biased_keys: int = 0  # layers whose keys have a bias, which LAVIS has no place for


def lavis_weights(
    weights: Weights, kind: Family, positions: int, model_type: ModelType = BLIP_2
) -> LavisWeights:
    """The weights in LAVIS's names, without the language model, as LAVIS saves them.

    ``positions`` is the length of the Q-Former's list of position ids, which LAVIS saves.
    """
    if PRE_NORM in weights:
        raise ModelError(
            "sources",
            "a model with CLIP's ViT-L is only read from LAVIS's files",
            "keep the file that it is from",
        )
    made = LavisWeights()
    made.weights[POSITION_IDS] = Weight.of(torch.arange(positions)[None])
    for name, weight in weights.items():
        if name.startswith(LANGUAGE_MODEL):
            made.language_model = True
            continue
        bias = _QKV_BIAS.fullmatch(name)
        for part, one in _split_qkv_bias(bias[1], weight).items() if bias else ((name, weight),):
            new = to_lavis(part, kind, model_type)
            if new is None:
                raise ModelError("sources", f"LAVIS has no place for the weight {part}")
            made.weights[new] = one
        if bias:
            third = weight.shape[0] // 3
            made.biased_keys += bool(weight.load()[third : 2 * third].any())
    return made


def write_lavis(weights: Weights, file: BinaryIO) -> None:
    """Write ``{"model": state dict}``; the weights are mapped from their files, not copied."""
    state = {name: weight.load() for name, weight in weights.items()}
    for name, tensor in state.items():
        check_finite(name, tensor)
    torch.save({"model": state}, file)


def _join_qkv_bias(weights: Weights, path: Path) -> Weights:
    """The same with ``q_bias`` and ``v_bias`` made one ``qkv.bias``."""
    joined: Weights = {}
    for name, weight in weights.items():
        layer = _Q_BIAS.fullmatch(name)
        if layer is None:
            if not name.endswith(".v_bias"):
                joined[name] = weight
            continue
        values = weights.get(f"{layer[1]}v_bias")
        if values is None:
            problem = f"{path} has {name} without its v_bias"
            raise ModelError(None, problem, "fetch the file again")
        joined[f"{layer[1]}qkv.bias"] = _qkv_bias(weight, values)
    return joined


def _qkv_bias(queries: Weight, values: Weight) -> Weight:
    def load() -> Tensor:
        q, v = queries.load(), values.load()
        return torch.cat((q, torch.zeros_like(v), v))

    return Weight((3 * queries.shape[0],), queries.dtype, load)


def _split_qkv_bias(layer: str, bias: Weight) -> Weights:
    width = bias.shape[0] // 3

    def part(start: int) -> Weight:
        return Weight((width,), bias.dtype, lambda: bias.load()[start : start + width].clone())

    return {f"{layer}q_bias": part(0), f"{layer}v_bias": part(2 * width)}


def _kind(path: Path, tensors: dict[str, Tensor]) -> Family:
    for family in FAMILIES:
        if family.lavis_key in tensors:
            return family
    if "blocks.0.attn.qkv.weight" in tensors or "ln_pre.weight" in tensors:
        raise ModelError(
            "sources",
            f"{path} is only a vision encoder",
            "give the checkpoint that was trained on it, and this file with "
            f"{option('vision_weights')}",
        )
    raise ModelError(
        "sources",
        f"{path} holds no BLIP-2 of LAVIS: it has none of "
        f"{', '.join(family.lavis_key for family in FAMILIES)}",
    )


def _image_size(found: Any) -> int | None:
    """``model.image_size`` of the training run's configuration, which LAVIS's runner saves."""
    for name in ("config", "model"):
        found = found.get(name) if isinstance(found, dict) else None
    size = found.get("image_size") if isinstance(found, dict) else None
    return size if isinstance(size, int) else None
