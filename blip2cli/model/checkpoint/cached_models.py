"""Models in the cache of the Hugging Face hub, found by the names of folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice

from blip2cli.model.checkpoint.foreign_files import ADAPTER_FILES
from blip2cli.model.checkpoint.model_types import MODEL_TYPES

_MOST_FOLDERS = 1000
_MOST_BYTES = 1 << 20  # of a configuration


def cached_models(every: bool = False) -> Iterator[str]:
    """Hub ids of what is in the cache: of models that are run and of adapters, or of ``every``.

    The cache has a folder ``models--OWNER--NAME`` for each, and in its folder ``snapshots`` one for
    each commit (as ``huggingface_hub`` documents it). Raises OSError where there is no cache.
    """
    from huggingface_hub import constants

    with os.scandir(constants.HF_HUB_CACHE) as entries:
        names = (entry.name for entry in entries if entry.name.startswith("models--"))
        folders = sorted(islice(names, _MOST_FOLDERS))
    for folder in folders:
        snapshots = os.path.join(constants.HF_HUB_CACHE, folder, "snapshots")
        commits = os.listdir(snapshots) if os.path.isdir(snapshots) else []
        if any(every or holds_model(os.path.join(snapshots, commit)) for commit in commits):
            yield folder.removeprefix("models--").replace("--", "/")


def holds_model(directory: str) -> bool:
    """Whether a directory holds a model of a kind that is run, or an adapter, by its settings."""
    if os.path.isfile(os.path.join(directory, ADAPTER_FILES[0])):
        return True
    try:
        with open(os.path.join(directory, "config.json"), "rb") as file:
            return json.loads(file.read(_MOST_BYTES)).get("model_type") in MODEL_TYPES
    except (OSError, ValueError, AttributeError):
        return False
