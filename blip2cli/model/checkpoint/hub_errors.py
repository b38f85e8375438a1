"""Failures of the Hugging Face hub: which pass, which mean that it cannot be reached, and errors
with a remedy of all others."""

from __future__ import annotations

import errno

from blip2cli.errors import ModelError


def is_transient(error: Exception) -> bool:
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


def unreachable(error: Exception) -> str | None:
    """Why the hub could not be asked at all; None for every other kind of failure."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "the hub is switched off (HF_HUB_OFFLINE)"
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        inner = error.__cause__
        return unreachable(inner) if isinstance(inner, Exception) else None
    if isinstance(error, httpx2.ConnectError | httpx2.TimeoutException | httpx2.ProxyError):
        return f"the hub ({constants.ENDPOINT}) cannot be reached"
    if isinstance(error, HfHubHTTPError) and error.response.status_code >= 500:
        return f"the hub ({constants.ENDPOINT}) answers {error.response.status_code}"
    return None


def hub_failure(repo: str, revision: str | None, error: Exception) -> ModelError | None:
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
