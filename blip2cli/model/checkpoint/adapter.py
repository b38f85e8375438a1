"""Adapters of PEFT, such as LoRA: their directory and settings, read without torch or ``peft``.

``model.loading.merge_adapters`` adds their weights to those of the model they were trained on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip2cli.errors import ModelError, option
from blip2cli.model.checkpoint.foreign_files import ADAPTER_FILES, MERGE, check_pointer
from blip2cli.model.checkpoint.weight_files import WEIGHT_FILES, read_json

_CONFIG, *_WEIGHTS = ADAPTER_FILES
# Initial values of A and B that leave the base model's weights as they are (``lora/layer.py``).
_PLAIN_STARTS = (None, True, False, "true", "gaussian", "eva", "orthogonal", "mica")
# Settings of another computation than W + scale * B @ A, where they are set, and its name.
_VARIANTS = {
    "alora_invocation_tokens": "aLoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "layer_replication": "layer_replication",
    "monteclora_config": "MonteCLoRA",
    "target_parameters": "target_parameters",
    "trainable_token_indices": "trainable_token_indices",
    "use_bdlora": "BD-LoRA",
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
}
# Settings that say what the product of an adapter's weights is multiplied by, or replaces.
FACTORS = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save")
# Settings that matter to training alone, or that are read below.
_KNOWN = frozenset(
    (
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config",
        "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out",
        "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform",
        "loftq_config", "lora_alpha", "lora_bias", "lora_dropout", "lora_ga_config",
        "megatron_config", "megatron_core", "modules_to_save", "peft_type", "peft_version",
        "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config", "target_modules",
        "target_modules_to_tie", "task_type", "use_rslora", "velora_config",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Adapter:
    """An adapter of the kind LoRA (arXiv 2106.09685), inspected; its weights are not read yet."""

    name: str  # as it was asked for
    path: Path
    weights: Path  # its file
    settings: Mapping[str, Any]  # its configuration
    scale: float = 1.0  # what its change is multiplied by, beside its own factor

    def __str__(self) -> str:
        """Its name, and its scale where that is not 1."""
        return self.name if self.scale == 1 else f"{self.name} by {self.scale:g}"

    @property
    def base(self) -> str | None:
        """The model it was trained on, by its own configuration: a hub id or a directory."""
        return self.settings.get("base_model_name_or_path") or None

    @property
    def base_revision(self) -> str | None:
        """The revision of that model, where the configuration notes one."""
        return self.settings.get("revision") or None

    def factor(self, module: str, rank: int) -> float:
        """What the product B @ A of a module is multiplied by, which has ``rank`` rows in A.

        ``alpha / rank``; rank-stabilised (arXiv 2312.03732) ``alpha / sqrt(rank)``.
        """
        alpha = _by_pattern(self.settings, "alpha_pattern", module, "lora_alpha")
        return self.scale * alpha / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)

    def rank(self, module: str) -> float:
        """The rank that its configuration gives a module."""
        return _by_pattern(self.settings, "rank_pattern", module, "r")

    def saves(self, module: str) -> bool:
        """Whether a copy of ``module`` was trained in its place (``modules_to_save``)."""
        saved = self.settings.get("modules_to_save") or ()
        return any(f"{name}." in f"{module}." for name in saved)  # as PEFT, by the end of names


def _by_pattern(settings: Mapping[str, Any], patterns: str, module: str, usual: str) -> float:
    """A number of a module: that of the first pattern that matches its name, as in PEFT's
    ``get_pattern_key``, else the one of all modules."""
    for pattern, value in (settings.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(value)
    return float(settings[usual])


def is_adapter(folder: Path) -> bool:
    """Whether a directory is an adapter and no whole model. Raises ModelError for broken JSON."""
    if (folder / "config.json").is_file() and "peft_type" in read_json(folder / "config.json"):
        return True
    names = [name for pair in WEIGHT_FILES for name in pair]
    return (folder / _CONFIG).is_file() and not any((folder / name).is_file() for name in names)


def read_adapter(name: str, folder: Path, scale: float = 1.0) -> Adapter:
    """The adapter in a directory, which ``name`` asked for.

    Raises ModelError, saying what is missing, or naming the kind of an adapter that is none of
    LoRA, or of a LoRA that computes something else.
    """
    settings = _settings(name, folder)
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise _unknown(name, f"of the kind {kind}")
    for key, value in settings.items():
        if key in _VARIANTS and value:
            raise _unknown(name, f"with {_VARIANTS[key]}")
        if key not in _KNOWN and key not in _VARIANTS and value:
            raise _unknown(name, f"with {key}, which this version does not know,")
    start = settings.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        raise _unknown(name, f"with init_lora_weights {start}, which changes the base model's own")
    if settings.get("megatron_config"):
        raise _unknown(name, "with megatron_config")
    _check_numbers(name, settings)
    return Adapter(name, folder, _weights(name, folder), settings, scale)


def _settings(name: str, folder: Path) -> dict[str, Any]:
    for file in (folder / _CONFIG, folder / "config.json"):
        if file.is_file():
            check_pointer(file)
            settings = read_json(file)
            if file.name == _CONFIG or "peft_type" in settings:
                return {"peft_type": "LORA"} | settings
    raise ModelError("adapter", f"{name} holds no adapter of PEFT (no {_CONFIG})", _give())


def _weights(name: str, folder: Path) -> Path:
    """The file with the weights; where the configuration was renamed, they may be, too."""
    names = list(_WEIGHTS)
    if not (folder / _CONFIG).is_file():
        names += [single for single, _ in WEIGHT_FILES[:2]]
    for each in names:
        if (folder / each).is_file():
            check_pointer(folder / each)
            return folder / each
    raise ModelError(
        "adapter", f"{name} has no weights (looked for {', '.join(names)})", "fetch it again"
    )


def _check_numbers(name: str, settings: Mapping[str, Any]) -> None:
    """Raise ModelError for ranks and alphas that are none."""
    for key, each in (("r", settings.get("r")), ("lora_alpha", settings.get("lora_alpha"))):
        if isinstance(each, bool) or not isinstance(each, int | float):
            raise _broken(name, key, each)
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern, each in _object(name, settings, key).items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise _broken(name, key, pattern) from error
            if isinstance(each, bool) or not isinstance(each, int | float):
                raise _broken(name, key, each)
    saved = settings.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(each, str) for each in saved):
        raise _broken(name, "modules_to_save", saved)


def _object(name: str, settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = settings.get(key) or {}
    if not isinstance(value, dict):
        raise _broken(name, key, value)
    return value


def _broken(name: str, key: str, value: object) -> ModelError:
    return ModelError(
        "adapter", f"{_CONFIG} of {name} says {key}: {value!r}", "fetch the adapter again"
    )


def _unknown(name: str, what: str) -> ModelError:
    return ModelError("adapter", f"{name} is an adapter of PEFT {what}, which is not merged", MERGE)


def _give() -> str:
    return f"give {option('adapter')} a directory that PEFT's save_pretrained wrote, or a hub id"
