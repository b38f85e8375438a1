"""Checkpoints from the Hugging Face hub, downloaded once and then read from its cache.

``huggingface_hub`` does the work and honours ``HF_HOME``, ``HF_TOKEN``, ``HF_ENDPOINT`` and
``HF_HUB_OFFLINE``; downloads cut short go on where they stopped. This file chooses the files and
turns failures into errors with a remedy.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from blip2cli.errors import ModelError, option
from blip2cli.model.checkpoint.adapter import is_adapter
from blip2cli.model.checkpoint.foreign_files import ADAPTER_FILES, check_adapter
from blip2cli.model.checkpoint.hub_errors import hub_failure, is_transient, unreachable
from blip2cli.model.checkpoint.other_models import check_kind, no_model
from blip2cli.model.checkpoint.weight_files import (
    QFORMER_TOKENIZER,
    WEIGHT_FILES,
    inspect_checkpoint,
    read_json,
)

Result = TypeVar("Result")

_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    *_TOKENIZER,
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "vocab.txt",
    "tokenizer.model",
    *(f"{QFORMER_TOKENIZER}/{name}" for name in (*_TOKENIZER, "vocab.txt")),
)
ATTEMPTS = 3
PAUSE = 1.0  # seconds before the second attempt; doubled before the third


def fetch(repo: str, revision: str | None) -> Path:
    """The directory of a BLIP-2 or of an adapter on the hub, downloading what the cache lacks.

    When the hub cannot be reached the cache alone will do. Raises ModelError.
    """
    found = _downloaded(repo, revision, lambda: _download(repo, revision))
    return found if isinstance(found, Path) else _cached(repo, revision, found)


def fetch_adapter(repo: str) -> Path:
    """The directory of an adapter on the hub, whatever else its repository holds.

    As ``fetch``.
    """
    found = _downloaded(repo, None, lambda: _download_adapter(repo, None))
    return found if isinstance(found, Path) else _cached(repo, None, found)


def current_commit(repo: str, revision: str | None) -> str | None:
    """The commit that a model has on the hub now; where that cannot be asked, in the cache.

    None for an adapter, too: its commit says nothing of its base model.
    """
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    if not constants.is_offline_mode():
        with contextlib.suppress(Exception):
            info = HfApi().model_info(repo, revision=revision, timeout=10)
            files = [sibling.rfilename for sibling in info.siblings or []]
            return None if any(name in files for name in ADAPTER_FILES) else info.sha
    found = try_to_load_from_cache(repo, "config.json", revision=revision)
    if not isinstance(found, str) or is_adapter(Path(found).parent):
        return None
    return Path(found).parent.name


def fetch_repository(repo: str, weights: bool) -> Path:
    """The directory of a repository that need not be BLIP-2, with its weights if ``weights``.

    When the hub cannot be reached, what the cache holds will do. Raises ModelError.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    reason = _downloaded(repo, None, lambda: _download_plain(repo, weights))
    if isinstance(reason, Path):
        return reason
    found = try_to_load_from_cache(repo, "config.json")
    if isinstance(found, str):
        return Path(found).parent
    raise ModelError(
        "model",
        f"{reason} and {repo} is not in the cache ({constants.HF_HUB_CACHE}): go online, set "
        "HF_HOME to a cache that holds it, or give the path of a directory with it",
    )


def _downloaded(repo: str, revision: str | None, download: Callable[[], Path]) -> Path | str:
    """What ``download`` returns; or, as text, why the hub could not be asked.

    Raises ModelError when the hub was asked and the download failed.
    """
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return "the hub is switched off (HF_HUB_OFFLINE)"
    try:
        return download()
    except ModelError:
        raise
    except Exception as error:
        reason = unreachable(error)
        if reason is not None:
            return reason
        failure = hub_failure(repo, revision, error)
        if failure is None:
            raise
        raise failure from error


def _download_plain(repo: str, weights: bool) -> Path:
    files = _files(repo, None)
    names = [file for file in SMALL_FILES if file in files]
    names += weights_to_fetch(files) if weights else []
    return _snapshot(repo, None, names)


def weights_to_fetch(files: list[str]) -> list[str]:
    """Of a repository's files, those that hold the weights: safetensors, else pickles."""
    for single, index in WEIGHT_FILES:
        stem, suffix = single.rsplit(".", 1)
        if single in files:
            return [single]
        if index in files:
            return [
                file
                for file in files
                if file == index or (file.startswith(f"{stem}-") and file.endswith(f".{suffix}"))
            ]
    return []


def _download(repo: str, revision: str | None) -> Path:
    files = _files(repo, revision)
    weights = weights_to_fetch(files)
    if not weights and any(name in files for name in ADAPTER_FILES):
        return _download_adapter(repo, revision)
    check_adapter(f"{repo} on the hub", files)
    if "config.json" not in files:
        raise no_model(f"{repo} on the hub", files)
    small = [file for file in SMALL_FILES if file in files]
    # The small files first: they tell whether the large ones are worth fetching.
    config = read_json(_snapshot(repo, revision, small) / "config.json")
    if "peft_type" in config:
        return _download_adapter(repo, revision)
    check_kind(f"{repo} on the hub", config)
    if not weights:
        raise ModelError("model", f"{repo} on the hub has neither safetensors nor .bin weights")
    return _snapshot(repo, revision, small + weights)


def _download_adapter(repo: str, revision: str | None) -> Path:
    files = _files(repo, revision)
    config, safetensors, pickle = ADAPTER_FILES
    names = [config] if config in files else []
    if not names and "config.json" in files:  # its configuration may have been renamed
        names = ["config.json"]
        if "peft_type" not in read_json(_snapshot(repo, revision, names) / "config.json"):
            names = []
    if not names:
        raise ModelError(
            "adapter",
            f"{repo} on the hub holds no adapter of PEFT (no {config})",
            "name its repository, with its owner, or a directory",
        )
    weights = [name for name in (safetensors, pickle) if name in files][:1]
    if not weights and names == ["config.json"]:
        weights = weights_to_fetch(files)
    return _snapshot(repo, revision, names + weights)


def _files(repo: str, revision: str | None) -> list[str]:
    """The names of the files in a repository."""
    from huggingface_hub import HfApi

    info = _with_retries(lambda: HfApi().model_info(repo, revision=revision))
    return [sibling.rfilename for sibling in info.siblings or []]


def _snapshot(repo: str, revision: str | None, names: list[str]) -> Path:
    """The directory of a repository in the cache, with the files of these names."""
    from huggingface_hub import snapshot_download

    return _with_retries(
        lambda: Path(snapshot_download(repo, revision=revision, allow_patterns=names))
    )


def _with_retries(call: Callable[[], Result]) -> Result:
    """Call the hub, again after a transient failure; what was downloaded is not lost."""
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            time.sleep(PAUSE * 2 ** (attempt - 1))
    return call()


def _cached(repo: str, revision: str | None, reason: str) -> Path:
    """The directory as the cache holds it, whole; otherwise the sentence for people offline."""
    from huggingface_hub import constants, try_to_load_from_cache

    state = "is not in the cache"
    for name in ("config.json", ADAPTER_FILES[0]):
        found = try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(found, str):
            folder = Path(found).parent
            try:
                if not is_adapter(folder):
                    inspect_checkpoint(folder)
                return folder
            except ModelError:
                state = "is only partly in the cache"
    raise ModelError(
        "model",
        f"{reason} and {repo} {state} ({constants.HF_HUB_CACHE}): go online, set HF_HOME to a "
        f"cache that holds it, give {option('model')} the path of a directory with the model, or "
        f"try {option('model')} tiny, which ships with blip2cli",
    )
