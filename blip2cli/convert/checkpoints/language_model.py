"""Language models and tokenizers, which LAVIS's files do not hold (``language_model``)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blip2cli.convert.checkpoints.lavis_file import LANGUAGE_MODEL
from blip2cli.errors import ModelError, option
from blip2cli.model.checkpoint.foreign_files import check_adapter
from blip2cli.model.checkpoint.hub import fetch_repository
from blip2cli.model.checkpoint.lazy_weights import Weight, Weights, read_weights
from blip2cli.model.checkpoint.resolve import HUB_ID
from blip2cli.model.checkpoint.weight_files import TOKENIZER_FILES, read_json, weight_files
from blip2cli.model.families import Family
from blip2cli.model.loading.stored import plain_weights
from blip2cli.model.tokenizer.text import read_tokenizer
from blip2cli.system.library_logging import silence_hub, silence_libraries


@dataclass(frozen=True)
class Language:
    """A directory with a tokenizer and, but for retrieval, a language model."""

    path: Path
    kind: Family

    def weights(self) -> Weights:
        """The language model's weights in BLIP-2's names. Raises ModelError."""
        weights: Weights = {}
        found = read_weights(weight_files(self.path))
        config = read_json(self.path / "config.json")
        for name, weight in plain_weights(found, str(self.path), config).items():
            if self.kind.lavis_dtype is not None:  # whatever it was stored in
                weight = weight.to(getattr(torch, self.kind.lavis_dtype))
            weights[LANGUAGE_MODEL + self.kind.weight_name(name)] = weight
        return weights

    def tokenizer(self) -> Any:
        """The tokenizer with the special tokens that LAVIS sets. Raises ModelError."""
        with silence_libraries():
            tokenizer = read_tokenizer(self.path)
        tokens = dict(self.kind.lavis_tokens)
        if tokens:
            tokenizer.add_special_tokens(tokens)
        if self.kind.writes and "bos_token" in tokens:
            tokenizer.add_bos_token = True  # prompts begin with the new one
        return tokenizer


def find_language(name: str, kind: Family, field: str = "language_model") -> Language:
    """The language model called ``name``: a directory or a hub id; ``field`` is the option for it.

    Raises ModelError.
    """
    path = Path(name).expanduser()
    given = f"{option(field)} {name}"
    if not path.is_dir():
        if HUB_ID.fullmatch(name) is None and "/" in name:
            raise ModelError(field, f"{given} is neither a directory nor a hub id")
        with silence_hub():
            path = fetch_repository(name, weights=kind.writes)
    check_adapter(given, os.listdir(path))
    if not (path / "config.json").is_file():
        raise ModelError(field, f"{given} holds no model: it has no config.json")
    found = read_json(path / "config.json").get("model_type")
    if found != kind.model_type:
        problem = f"{given} is of the type {found}, and this checkpoint wants {kind.model_type}"
        raise ModelError(field, problem)
    if not any((path / file).is_file() for file in TOKENIZER_FILES):
        raise ModelError(field, f"{given} has no tokenizer", "fetch its files as well")
    return Language(path, kind)


def pad_vocabulary(weights: Weights, kind: Family, rows: int) -> Weights:
    """The weights with ``rows`` tokens in their vocabulary; a new row is the mean of the others.

    No text holds the tokens of new rows, but the model gives them a logit: that of the mean is the
    mean logit, so it never wins, while that of zeros may.
    """
    names = {LANGUAGE_MODEL + name for name in kind.word_weights}
    return {
        name: _padded(weight, rows) if name in names and weight.shape[0] < rows else weight
        for name, weight in weights.items()
    }


def _padded(weight: Weight, rows: int) -> Weight:
    def load() -> Tensor:
        old = weight.load()
        mean = old.float().mean(dim=0).to(old.dtype)
        return torch.cat((old, mean.expand(rows - old.shape[0], -1)))

    return Weight((rows, *weight.shape[1:]), weight.dtype, load)
