"""The weights of a checkpoint as its network names them, whoever stored them.

One reader for runs, ``doctor`` and ``convert``: what one of them refuses, the others refuse.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.foreign_files import unmerged_error
from blip2cli.model.checkpoint.lazy_weights import Weights, read_weights
from blip2cli.model.checkpoint.weight_files import Checkpoint
from blip2cli.model.families import Family
from blip2cli.model.loading.quantized_checkpoints import FLOATS, REMEDY, dequantized, quantizer_name

# What training and saving put in front of every name: transformers' base models, DataParallel,
# torch.compile.
_PREFIXES = ("model.", "blip2.", "blip.", "module.", "_orig_mod.")
# Names that PEFT gives to adapters and to the layers it wraps.
_ADAPTER = re.compile(
    r"(^|\.)(base_model\.model|lora_\w+|base_layer|modules_to_save|original_module|ia3_l|hada_w\w+"
    r"|lokr_w\w+|oft_\w+|boft_\w+|vera_\w+|prompt_embeddings)(\.|$)"
)
# Tensors that no result depends on, and why they are there.
_HARMLESS: tuple[tuple[str, str], ...] = (
    (r"(.+\.)?position_ids", "0, 1, 2, …, which older transformers saved along"),
    (r".+\.EncDecAttention\.relative_attention_bias\.weight", "of older T5, which never read it"),
    (r".+\.decoder\.version", "a mark of the format of older OPT"),
    (r".+\.rotary_emb\.inv_freq", "frequencies of positions, which are computed"),
    (r".+\.(input|output)_(scale|zero_point)", "to round activations by, which are not rounded"),
)
# The other half of a file that holds both kinds of model.
_OTHER_HALF = {
    True: r"(itm_head|vision_projection|text_projection|embeddings)\..+",  # of a model that writes
    False: r"(language_model|language_projection)\..+",
}
_LAYER = re.compile(r"\.\d+\.")
_OWN = (".weight", ".bias")
# What InstructBLIP's Q-Former reads instructions with.
_INSTRUCTIONS = ("qformer.embeddings.word_embeddings.weight",)


def stored_weights(checkpoint: Checkpoint, keep_open: bool = False) -> tuple[Weights, list[str]]:
    """The weights of a checkpoint with its adapters in them, and what is to be said of them;
    ``keep_open`` as in ``read_weights``.

    Raises ModelError for files that are damaged, adapters that cannot be merged, weights that are
    quantized in a way that is not read, and names of one weight with different numbers.
    """
    where, config = str(checkpoint.path), checkpoint.config
    found = read_weights(checkpoint.weights, keep_open)
    tool = quantizer_name(config)
    plain = all(w.dtype in FLOATS or is_harmless(n, checkpoint.family) for n, w in found.items())
    remarks = []
    if tool and plain:
        remarks.append(
            f"config.json says that the weights are quantized ({tool}), but they are plain, and "
            "are used as they are"
        )
    weights = plain_weights(found, where, config)
    _check_aliases(where, weights, checkpoint.family)
    if checkpoint.adapters:
        from blip2cli.model.loading.merge_adapters import merged

        weights = merged(weights, checkpoint)
    return weights, remarks


def _check_aliases(where: str, weights: Weights, family: Family) -> None:
    """Raise ModelError where two names of one weight hold different numbers."""
    aliases = dict(family.weight_aliases)
    first: dict[str, str] = {}  # by the name that the weight has here
    for name, weight in weights.items():
        other = first.setdefault(aliases.get(name, name), name)
        if other != name and not torch.equal(weights[other].load(), weight.load()):
            raise ModelError(
                None,
                f"{where} holds {other} and {name} with different numbers, of which the model has "
                "one",
                "save the model again after tie_weights()",
            )


def plain_weights(weights: Weights, where: str, config: Mapping[str, Any]) -> Weights:
    """The weights of any model of transformers, without prefixes, quantized ones dequantized.

    Raises ModelError as ``stored_weights``.
    """
    for name in weights:
        if _ADAPTER.search(name):
            raise unmerged_error(where, name)
    while weights:
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in weights)), None)
        if prefix is None:
            break
        weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    return dequantized(weights, where, config)


def is_harmless(name: str, family: Family) -> bool:
    """Whether no result depends on a tensor that the network has no place for."""
    patterns = (*(pattern for pattern, _ in _HARMLESS), _OTHER_HALF[family.writes])
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def check_weights(
    where: str,
    weights: Weights,
    shapes: Mapping[str, Sequence[int]],
    family: Family,
    optional: Collection[str] = (),
    tool: str | None = None,
) -> list[str]:
    """The names of the weights that a network of these ``shapes`` has no place for.

    Those that no result depends on are left out. ``optional`` weights may be missing; ``tool`` is
    who quantized them, as the configuration says. Raises ModelError for weights that are missing,
    of another shape or of another kind than numbers with a fraction, and for those that results
    would depend on: layers or biases that the configuration does not mention.
    """
    for name, weight in weights.items():
        if name in shapes and weight.dtype not in FLOATS:
            raise ModelError(
                None,
                f"{where} holds {name} as {str(weight.dtype).removeprefix('torch.')}, where "
                "numbers with a fraction belong, without scales beside it"
                f"{f' (it is quantized by {tool})' if tool else ''}",
                REMEDY,
            )
    misshapen = [n for n, w in weights.items() if n in shapes and w.shape != tuple(shapes[n])]
    if misshapen:
        first = min(misshapen)
        raise ModelError(
            None,
            f"{where} has {_counted(misshapen)} of another shape than its config.json says "
            f"({some(sorted(misshapen))}: {list(weights[first].shape)}, not {list(shapes[first])})",
            "take config.json and weights from one model",
        )
    missing = [name for name in shapes if name not in weights and name not in optional]
    if missing:
        raise ModelError(
            None,
            f"{where} lacks {_counted(missing)} of the model ({some(sorted(missing))})",
            "they would be random, so fetch or save the model again",
        )
    unused = sorted(n for n in weights if n not in shapes and not is_harmless(n, family))
    layers = {_LAYER.sub(".", name) for name in shapes}
    modules = {name.rpartition(".")[0] for name in shapes}
    demanded = [
        name
        for name in unused
        if _LAYER.sub(".", name) in layers
        or (name.endswith(_OWN) and name.rpartition(".")[0] in modules)
        or (family.writes and name in _INSTRUCTIONS)
    ]
    if demanded:
        raise ModelError(
            None,
            f"{where} holds {_counted(demanded)} of another model than its "
            f"config.json describes ({some(demanded)})",
            "take config.json and weights from one model, a BLIP-2",
        )
    return unused


def unused_remark(names: Sequence[str]) -> str:
    """What is said of tensors that nothing uses."""
    what = (
        "1 tensor in the model's files is"
        if len(names) == 1
        else (f"{len(names)} tensors in the model's files are")
    )
    return f"{what} used by nothing ({some(names)})"


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} weight{'s' if len(names) > 1 else ''}"


def some(names: Sequence[str]) -> str:
    """The first names, and whether there are more."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown}, …"
