"""What an output remembers of its sources, as plain JSON values.

``base`` is the folder that names are relative to: with another base, a name means another image.
``roots`` are the places of the single sources, in their order. ``content`` holds the state of each
archive, of each table of images, and of each manifest whose columns are carried: what stands in
rows came out of them. Places are digests, since an output may be given away. A folder has no state:
new images join it, and which file stands for a name is asked of the name only. ``commits`` holds
the commit of each data set of the hub.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from blip2cli.sources.base import Source
from blip2cli.storage.opening import is_remote
from blip2cli.storage.secrets import hide_secrets

MOST_FILES = 10_000  # of which a state is kept
_LINES = (".csv", ".tsv", ".jsonl", ".errors", ".txt")  # manifests that grow at their end


def identify(
    sources: Iterable[Source], base: str, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The identity of ``sources``, whose names are relative to ``base``.

    With ``before``, an earlier identity, its last manifest has its old state if it has only grown
    since, so that the two can be compared. Rows of one that is not the last would come between
    those that are numbered. Raises OSError.
    """
    known: Mapping[str, Any] = (before or {}).get("content") or {}
    *_, last = (None, *known)
    content: dict[str, Any] = {}
    commits: dict[str, str] = {}
    roots = []
    for source in sources:
        roots.append(place(source.root))
        if source.commit:
            commits[roots[-1]] = source.commit
        for path in source.content_files():
            if is_remote(path) or len(content) >= MOST_FILES:
                continue
            where = place(path)
            content[where] = _state(path, known[where] if where == last else None)
    found = {"base": place(base), "roots": list(dict.fromkeys(roots)), "content": content}
    return found | ({"commits": commits} if commits else {})


def place(path: str) -> str:
    """A digest of a folder, a file or a URL, the same however it is written, of a data set of the
    hub at every commit."""
    text = hide_secrets(path) if is_remote(path) else os.path.realpath(path)
    if path.startswith("hf://"):
        text = re.sub("@[0-9a-f]{40}(?=/|$)", "", text)
    return hashlib.sha256(os.fsencode(text.rstrip("/"))).hexdigest()[:32]


def _state(path: str, before: Mapping[str, Any] | None) -> dict[str, Any]:
    about = os.stat(path)
    if not path.lower().endswith(_LINES):
        return {"size": about.st_size, "mtime": about.st_mtime_ns}
    size = about.st_size
    if before is not None:
        size = min(size, int(before.get("size", size)))
    digest, left = hashlib.sha256(), size
    with open(path, "rb") as file:
        while left and (data := file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
    return {"size": size, "sha256": digest.hexdigest()[:32]}
