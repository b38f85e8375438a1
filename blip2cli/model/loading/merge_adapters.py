"""Adapters of PEFT merged into the weights of the model they were trained on.

``W + scale * B @ A`` for each layer of a LoRA (arXiv 2106.09685), computed in float32 when a weight
is read, whatever the files and the run are in. Results are those of the adapter as PEFT runs it:
where two layers share a matrix and one of them was trained, the other keeps it as it was, which
merging by PEFT does not heed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.adapter import Adapter
from blip2cli.model.checkpoint.foreign_files import MERGE
from blip2cli.model.checkpoint.lazy_weights import Weight, Weights, read_weights
from blip2cli.model.checkpoint.weight_files import Checkpoint

_LANGUAGE_MODEL = "language_model."
# Such as ``layer.lora_A.default.weight``: the adapter's own name may be missing, and embeddings
# have no ``weight``.
_LOW_RANK = re.compile(
    r"(.+)\.lora_(embedding_)?([AB])(?:\.(?!weight$|bias$)([^.]+))?(?:\.(weight|bias))?"
)
_UNKNOWN = re.compile(r"(^|\.)(lora_\w+|ia3_l|hada_w\w+|lokr_w\w+|vera_\w+|token_adapter)(\.|$)")
# The copy of a module that was trained in its place, and the one it was made of.
_COPY = re.compile(r"\.modules_to_save(\.[^.]+)?(?=\.)")
_ORIGINAL = ".original_module."
# What training puts into names: PEFT, DataParallel, torch.compile, FSDP, checkpointing.
_WRAPPERS = frozenset(
    ("base_layer", "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
)
# What stands before the names of the whole model, and the parts that may be trained by themselves.
_OUTER = ("base_model.model.", "base_model.", "model.", "blip2.", "blip.")
_PARTS = (_LANGUAGE_MODEL, "vision_model.", "qformer.")

Change = Callable[[Tensor], Tensor]  # of a weight in float32, in place or not


def merged(weights: Weights, checkpoint: Checkpoint) -> Weights:
    """The weights of a model with its adapters in them, changed ones in float32.

    Raises ModelError, naming what does not fit, for an adapter of another model, of weights that
    are not known, or of a shape that its configuration or the model contradicts.
    """
    if not checkpoint.adapters:
        return weights
    model = _Model(weights, checkpoint)
    for adapter in checkpoint.adapters:
        _read(model, adapter)
    return model.merged()


@dataclass
class _Changes:
    """What becomes of one weight."""

    replaced_by: str | None = None  # the adapter that brings it whole
    added: list[Change] = field(default_factory=list)


class _Model:
    """The weights of a model, and what adapters change of them."""

    def __init__(self, weights: Weights, checkpoint: Checkpoint) -> None:
        family = checkpoint.family
        self.where = str(checkpoint.path)
        self._aliases = dict(family.weight_aliases)
        self.weights = {self._aliases.get(name, name): weight for name, weight in weights.items()}
        self._separate = dict(family.separate_words)
        # Layers that may share one matrix.
        self._words: list[str] = []
        if family.writes and checkpoint.model_config.text_config.ties_embeddings:
            words = (_LANGUAGE_MODEL + name for name in family.word_weights)
            self._words = [self._separate.get(name, name) for name in words]
            self._words = [name for name in self._words if name not in self._aliases]
        self._changes: dict[str, _Changes] = {}

    def find(self, name: str) -> str | None:
        """The name of a weight that an adapter calls ``name``; None where there is none."""
        candidates = (name, *(part + name for part in _PARTS))
        found = next((one for one in candidates if self._has(one)), None)
        outer = next((each for each in _OUTER if name.startswith(each)), None)
        if found is None and outer is not None:
            return self.find(name.removeprefix(outer))
        return found and self._separate.get(found, found)

    def _has(self, name: str) -> bool:
        return any(name in names for names in (self.weights, self._aliases, self._words))

    def base(self, name: str) -> Weight:
        """A weight before any change; of a matrix that is shared, whoever is in the files."""
        name = self._aliases.get(name, name)
        if name in self.weights:
            return self.weights[name]
        return next(self.weights[word] for word in self._words if word in self.weights)

    def sharing(self, name: str) -> list[str]:
        """The layers with the same matrix, ``name`` among them."""
        base = self.base(name)
        return [word for word in self._words if self.base(word) is base] or [name]

    def changes(self, name: str) -> _Changes:
        """What becomes of the weight ``name``, to be added to."""
        return self._changes.setdefault(name, _Changes())

    def merged(self) -> Weights:
        """All weights."""
        made = dict(self.weights)
        if any(name in self._changes for name in self._words):
            made |= {name: self.base(name) for name in self._words}
        for name, changes in self._changes.items():
            # An embedding under a name by which BLIP-2 never reads it has no effect.
            if name not in self._aliases:
                made[name] = _changed(self.base(name), changes.added)
        return made


def _changed(base: Weight, changes: list[Change]) -> Weight:
    def load() -> Tensor:
        made = base.load().to(torch.float32, copy=True)
        for change in changes:
            made = change(made)
        return made

    return Weight(base.shape, torch.float32, load)


def _read(model: _Model, adapter: Adapter) -> None:
    """Note what an adapter changes. Raises ModelError."""
    layers: dict[str, dict[str, Weight]] = {}  # A and B of each, and a bias of B
    embeddings: set[str] = set()
    names: set[str] = set()  # that adapters have in the file
    for name, weight in read_weights([adapter.weights], keep_open=True).items():
        if not weight.dtype.is_floating_point:
            raise _error(adapter, f"holds {name} as {weight.dtype}", "save it in float32")
        if (low_rank := _LOW_RANK.fullmatch(name)) is not None:
            module, embedding, letter, own, kind = low_rank.groups()
            names.add(own or "")
            layers.setdefault(module, {})["bias" if kind == "bias" else letter] = weight
            embeddings |= {module} if embedding else set()
        elif _UNKNOWN.search(name):
            raise _error(adapter, f"holds {name}, which is not merged", MERGE)
        elif _ORIGINAL not in name:
            _replace(model, adapter, name, weight)
    if len(names) > 1:
        several = ", ".join(sorted(names))
        raise _error(adapter, f"holds several adapters ({several})", "save each by itself")
    for module, found in layers.items():
        _add(model, adapter, module, found, module in embeddings)


def _add(
    model: _Model, adapter: Adapter, module: str, found: dict[str, Weight], embedding: bool
) -> None:
    """Note the change of one layer by A [r, I], or [r, V] of an embedding, and B [O, r]."""
    if "A" not in found or "B" not in found:
        parts = ", ".join(found)
        raise _error(adapter, f"holds only a part of {module} ({parts})", "fetch it again")
    first, second = found["A"], found["B"]
    plain = _plain(module).removeprefix(_OUTER[0])
    rank = first.shape[0]
    if rank != adapter.rank(plain):
        raise _error(
            adapter,
            f"holds {module} in rank {rank}, and its configuration says {adapter.rank(plain):g}",
            "take both from one training",
        )
    place = _place(model, adapter, f"{module}.weight")
    shape = (*second.shape[:1], *first.shape[1:])
    shape = shape[::-1] if embedding else shape
    shape = shape if second.shape[1:2] == (rank,) else ()
    _check_shape(model, adapter, place, shape, module)
    factor = adapter.factor(plain, rank)
    model.changes(place).added.append(_product(first, second, factor, embedding))
    if "bias" in found:
        place = _place(model, adapter, f"{module}.bias")
        _check_shape(model, adapter, place, found["bias"].shape, module)
        model.changes(place).added.append(_sum(found["bias"], factor))


def _replace(model: _Model, adapter: Adapter, name: str, weight: Weight) -> None:
    """Note a weight that an adapter brings whole: ``modules_to_save``, biases, embeddings."""
    bare = _COPY.sub("", name)
    place = _place(model, adapter, bare)
    _check_shape(model, adapter, place, weight.shape, name)
    module = _plain(bare).rpartition(".")[0]
    # A copy belongs to one layer; what else is saved along stands for whoever shares it.
    copied = bare != name or adapter.saves(module)
    for each in [place] if copied else model.sharing(place):
        changes = model.changes(each)
        if changes.replaced_by not in (None, adapter.name):
            raise _error(adapter, f"and {changes.replaced_by} both bring {each}", "use one of them")
        changes.replaced_by = adapter.name
        changes.added.insert(0, _mixture(weight, adapter.scale))


def _product(first: Weight, second: Weight, factor: float, embedding: bool) -> Change:
    def change(old: Tensor) -> Tensor:
        # Of a convolution B has one number for each pair of channels.
        product = second.load().float().flatten(1) @ first.load().float().flatten(1)
        product = product.T if embedding else product
        return old.add_(product.reshape(old.shape), alpha=factor)

    return change


def _sum(weight: Weight, factor: float) -> Change:
    return lambda old: old.add_(weight.load().float(), alpha=factor)


def _mixture(weight: Weight, scale: float) -> Change:
    return lambda old: torch.lerp(old, weight.load().float(), scale)  # the new one, exactly, at 1


def _plain(name: str) -> str:
    """A name without what training put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _place(model: _Model, adapter: Adapter, name: str) -> str:
    found = model.find(_plain(name))
    if found is None:
        base = adapter.base or "another model"
        raise _error(
            adapter,
            f"changes {name}, which the model in {model.where} does not have",
            f"it was trained on {base}: give that one",
        )
    return found


def _check_shape(
    model: _Model, adapter: Adapter, place: str, shape: tuple[int, ...], name: str
) -> None:
    expected = model.base(place).shape
    if shape != expected:
        base = adapter.base or "another model"
        raise _error(
            adapter,
            f"changes {name} in the shape {list(shape)}, and the model in {model.where} has "
            f"{list(expected)}",
            f"it was trained on {base}, perhaps with more tokens: give the model as it was then",
        )


def _error(adapter: Adapter, problem: str, remedy: str) -> ModelError:
    return ModelError("adapter", f"the adapter {adapter.name} {problem}", remedy)
