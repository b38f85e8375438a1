"""Models that are taken for BLIP-2: which are none that is run, why, and what to use instead.

``docs/reference/models.md`` lists them beside those that are run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.model_types import MODEL_TYPES

_CAPTIONS = "Salesforce/blip2-opt-2.7b captions and answers, Salesforce/blip2-itm-vit-g compares"
_ANSWERS = "Salesforce/blip2-flan-t5-xl captions and answers"
_FRAMES = "give its frames as images to BLIP-2, such as Salesforce/blip2-flan-t5-xl"
_WHOLE = "give the directory of the whole model"


@dataclass(frozen=True)
class OtherModel:
    """One kind of model that is not run."""

    label: str  # behind "holds"
    why: str  # behind "which"
    instead: str


_PART = OtherModel("only a part of a BLIP-2", "writes and compares nothing by itself", _WHOLE)
# By ``model_type``.
OTHERS: dict[str, OtherModel] = {
    "blip": OtherModel(
        "BLIP, the model before BLIP-2",
        "has no Q-Former and a language model of its own",
        _CAPTIONS,
    ),
    "xgenmm": OtherModel(
        "xGen-MM (BLIP-3)",
        "has SigLIP, a perceiver and Phi-3 in the place of BLIP-2's parts, and runs by code of its "
        "own",
        _ANSWERS,
    ),
    "instructblipvideo": OtherModel("InstructBLIP for videos", "reads several frames", _FRAMES),
    "video_blip": OtherModel(
        "a BLIP for videos",
        "has a language model that BLIP-2 in transformers does not know, and code of its own",
        _FRAMES,
    ),
    "blip_text_model": OtherModel("a part of BLIP", "writes nothing by itself", _CAPTIONS),
    "blip_vision_model": OtherModel("a part of BLIP", "writes nothing by itself", _CAPTIONS),
    "blip_2_vision_model": _PART,
    "blip_2_qformer": _PART,
    "git": OtherModel("GIT", "has no Q-Former", _CAPTIONS),
    "kosmos-2": OtherModel("Kosmos-2", "has no Q-Former", _ANSWERS),
    "llava": OtherModel("LLaVA", "has no Q-Former", _ANSWERS),
}
# By the beginning of a class that a model says it is of, whatever its ``model_type``.
_CLASSES: tuple[tuple[str, str], ...] = (
    ("BlipFor", "blip"),
    ("GitFor", "git"),
    ("InstructBlipFor", "instructblip"),
    ("InstructBlipVideo", "instructblipvideo"),
    ("Llava", "llava"),
    ("XGenMM", "xgenmm"),
    ("Blip2VisionModel", "blip_2_vision_model"),
    ("Blip2TextModel", "blip_2_qformer"),
    ("Blip2QFormerModel", "blip_2_qformer"),
)
# Language models behind a Q-Former that are not run, by the ``model_type`` of ``text_config``.
_LANGUAGE_MODELS = {
    "bloom": "BLOOM, as mBLIP's",
    "gpt_neox": "GPT-NeoX",
    "mt5": "mT5, as mBLIP's",
}


def check_kind(where: str, config: Mapping[str, Any]) -> None:
    """Raise ModelError for the configuration of a model that is none of BLIP-2.

    The sentence says what it is, why it is not run, and what to use instead.
    """
    kind = given = str(config.get("model_type") or "model of unknown type")
    names = config.get("architectures")
    for name in map(str, names if isinstance(names, list) else ()):
        kind = next((other for begin, other in _CLASSES if name.startswith(begin)), kind)
    if kind in MODEL_TYPES and kind == given:
        return
    if kind in MODEL_TYPES:
        raise ModelError(
            "model",
            f"{where} holds a class of {MODEL_TYPES[kind].label}, and its model_type is {given}",
            "take config.json from the model that the weights are from",
        )
    found = OTHERS.get(kind)
    if found is not None:
        raise ModelError("model", f"{where} holds {found.label}, which {found.why}", found.instead)
    raise ModelError(
        "model",
        f"{where} holds a {kind}, not a BLIP-2 model (config.json must say model_type "
        f"{' or '.join(MODEL_TYPES)})",
        "look for one such as Salesforce/blip2-opt-2.7b",
    )


def no_model(where: str, files: Collection[str]) -> ModelError:
    """The error for a repository with these files, of which none is a configuration."""
    if "model_index.json" in files:
        return ModelError(
            "model",
            f"{where} holds a pipeline of diffusers, as BLIP-Diffusion is, which draws pictures",
            _CAPTIONS,
        )
    return ModelError(
        "model",
        f"{where} holds no transformers model (no config.json)",
        "look for a BLIP-2 repository such as Salesforce/blip2-opt-2.7b",
    )


def unknown_language_model(where: str, kind: object) -> ModelError:
    """The error for a BLIP-2 whose language model is not run; ``kind`` is its ``model_type``."""
    name = _LANGUAGE_MODELS.get(str(kind), kind)
    return ModelError(
        "model",
        f"{where} uses the language model {name}, and blip2cli runs BLIP-2 with OPT, (Flan-)T5 or "
        "Llama",
        _CAPTIONS,
    )
