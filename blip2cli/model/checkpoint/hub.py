"""Checkpoints from the Hugging Face hub, downloaded once and then read from its cache.

``huggingface_hub`` does the work and honours ``HF_HOME``, ``HF_TOKEN``, ``HF_ENDPOINT`` and
``HF_HUB_OFFLINE``; downloads cut short go on where they stopped. This file chooses the files and
turns failures into errors with a remedy.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from blip2cli.errors import ModelError, option
from blip2cli.model.checkpoint.foreign_files import check_adapter
from blip2cli.model.checkpoint.model_types import MODEL_TYPES
from blip2cli.model.checkpoint.weight_files import (
    QFORMER_TOKENIZER,
    WEIGHT_FILES,
    Checkpoint,
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


def fetch(repo: str, revision: str | None) -> Checkpoint:
    """Return the checkpoint of hub repository ``repo``, downloading what the cache lacks.

    When the hub cannot be reached the cache alone will do. Raises ModelError.
    """
    found = _downloaded(repo, revision, lambda: _download(repo, revision))
    return inspect_checkpoint(found) if isinstance(found, Path) else _cached(repo, revision, found)


def current_commit(repo: str, revision: str | None) -> str | None:
    """The commit that a model has on the hub now; where that cannot be asked, in the cache."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    if not constants.is_offline_mode():
        with contextlib.suppress(Exception):
            return HfApi().model_info(repo, revision=revision, timeout=10).sha
    found = try_to_load_from_cache(repo, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


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
        reason = _unreachable(error)
        if reason is not None:
            return reason
        failure = _failure(repo, revision, error)
        if failure is None:
            raise
        raise failure from error


def _download_plain(repo: str, weights: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    info = _with_retries(lambda: HfApi().model_info(repo))
    files = [sibling.rfilename for sibling in info.siblings or []]
    names = [file for file in SMALL_FILES if file in files]
    names += weights_to_fetch(files) if weights else []
    return _with_retries(lambda: Path(snapshot_download(repo, allow_patterns=names)))


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
    from huggingface_hub import HfApi, snapshot_download

    info = _with_retries(lambda: HfApi().model_info(repo, revision=revision))
    files = [sibling.rfilename for sibling in info.siblings or []]
    check_adapter(f"{repo} on the hub", files)
    if "config.json" not in files:
        raise ModelError(
            "model",
            f"{repo} on the hub holds no transformers model (no config.json)",
            "look for a BLIP-2 repository such as Salesforce/blip2-opt-2.7b",
        )
    weights = weights_to_fetch(files)
    small = [file for file in SMALL_FILES if file in files]

    def get(names: list[str]) -> Path:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=names))

    # The small files first: they tell whether the large ones are worth fetching.
    snapshot = _with_retries(lambda: get(small))
    kind = read_json(snapshot / "config.json").get("model_type")
    if str(kind) not in MODEL_TYPES:
        raise ModelError(
            "model",
            f"{repo} on the hub is a {kind or 'model of unknown type'}, not a BLIP-2 model",
            "look for one such as Salesforce/blip2-opt-2.7b",
        )
    if not weights:
        raise ModelError("model", f"{repo} on the hub has neither safetensors nor .bin weights")
    return _with_retries(lambda: get(small + weights))


def _with_retries(call: Callable[[], Result]) -> Result:
    """Call the hub, again after a transient failure; what was downloaded is not lost."""
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except Exception as error:
            if not _is_transient(error):
                raise
            time.sleep(PAUSE * 2 ** (attempt - 1))
    return call()


def _is_transient(error: Exception) -> bool:
    """Whether trying again makes sense: broken connections and servers in trouble.

    Cut downloads and refused connections are left out: while it downloads, huggingface_hub has
    already tried those six times itself.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code == 429
    if isinstance(error, httpx2.ReadError | httpx2.WriteError | httpx2.CloseError):
        return True
    return "Consistency check failed" in str(error)  # fewer bytes than announced


def _unreachable(error: Exception) -> str | None:
    """Why the hub could not be asked at all; None for every other kind of failure."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "the hub is switched off (HF_HUB_OFFLINE)"
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        inner = error.__cause__
        return _unreachable(inner) if isinstance(inner, Exception) else None
    if isinstance(error, httpx2.ConnectError | httpx2.TimeoutException | httpx2.ProxyError):
        return f"the hub ({constants.ENDPOINT}) cannot be reached"
    if isinstance(error, HfHubHTTPError) and error.response.status_code >= 500:
        return f"the hub ({constants.ENDPOINT}) answers {error.response.status_code}"
    return None


def _cached(repo: str, revision: str | None, reason: str) -> Checkpoint:
    """The checkpoint as the cache holds it, whole; otherwise the sentence for people offline."""
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json", revision=revision)
    state = "is not in the cache"
    if isinstance(found, str):
        try:
            return inspect_checkpoint(Path(found).parent)
        except ModelError:
            state = "is only partly in the cache"
    raise ModelError(
        "model",
        f"{reason} and {repo} {state} ({constants.HF_HUB_CACHE}): go online, set HF_HOME to a "
        f"cache that holds it, give {option('model')} the path of a directory with the model, or "
        f"try {option('model')} tiny, which ships with blip2cli",
    )


def _failure(repo: str, revision: str | None, error: Exception) -> ModelError | None:
    """A failed download as an error of ours; None when this is no such failure."""
    import httpx2
    from huggingface_hub import constants, errors

    hub, cache = constants.ENDPOINT, constants.HF_HUB_CACHE
    no_hub = ModelError("model", f"{hub} does not answer like a hub", "check HF_ENDPOINT")
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            "model",
            f"{repo} is gated: accept its terms at {hub}/{repo} and set HF_TOKEN to a token of "
            "that account",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelError(
            "model",
            f"there is no model {repo} on the hub ({hub}), or it is private: check the spelling, "
            "or set HF_TOKEN to a token that may read it",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(
            "revision",
            f"{repo} has no revision {revision}",
            "give a branch, tag or commit of it",
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return ModelError(
                "model",
                f"the hub refuses access to {repo} ({status}): check the token in HF_TOKEN",
            )
        return ModelError("model", f"the hub answered {status} for {repo}", "try again later")
    if isinstance(error, errors.FileMetadataError):
        return no_hub
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelError(
            "model",
            f"the disk is full while {repo} is downloaded to {cache}: make room or set HF_HOME to "
            "a larger disk, then run the same command again",
            "what arrived is kept",
        )
    if isinstance(error, OSError) and error.errno is not None:
        return ModelError(
            "model",
            f"{repo} cannot be stored in {cache} ({error.strerror})",
            "set HF_HOME to a directory you may write to",
        )
    cut = isinstance(error, httpx2.TransportError | errors.XetDownloadError)
    if cut or "Consistency check failed" in str(error):
        return ModelError(
            "model",
            f"the connection to the hub ({hub}) was cut while {repo} was downloaded",
            "run the same command again, what arrived is kept",
        )
    return no_hub if isinstance(error, ValueError | KeyError) else None
