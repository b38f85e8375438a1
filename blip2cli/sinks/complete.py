"""A note that a folder output is complete: of which list of images, and in which state it was then.

The output stays the only journal. The note holds digests of its files, which are made again in a
moment, and counts. Where the files and the list of images are those of the note, a run that resumes
has nothing to do, and reads neither the names in the one nor those in the other.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass

from blip2cli.options import OutputOptions
from blip2cli.sinks.folder_layout import HiddenRows
from blip2cli.sinks.folder_store import LocalFolder
from blip2cli.sinks.journal import Journal
from blip2cli.sinks.open_output import ResumedOutput
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import read_settings
from blip2cli.sinks.settings_file import mark, marks


@dataclass(frozen=True)
class Complete:
    """What is noted."""

    listing: str  # a digest of the list of images, see ``Listing.digest``
    images: int  # that have rows
    failed: int  # that have none, and are not tried again
    listed: int  # of the list, each with rows or failed


def note_complete(out: str, complete: Complete) -> None:
    """Note that the folder ``out`` is complete. Raises OSError."""
    paths = OutputPaths.of(out)
    state = _state(paths)
    if state is not None:
        mark(paths, complete={**asdict(complete), "state": state})


def read_complete(options: OutputOptions) -> tuple[Complete, ResumedOutput] | None:
    """The note, with the output as far as it is known without reading it.

    None where there is no note, or the files are others than then. Raises OSError.
    """
    paths = OutputPaths.of(options.out or "")
    if not paths.is_folder or paths.is_remote:
        return None
    noted = marks(paths).get("complete")
    settings = read_settings(paths)
    try:
        known = dict(noted or {})
        state = known.pop("state")
        complete = Complete(**known)
    except (TypeError, ValueError, KeyError):
        return None
    if settings is None or state != _state(paths):
        return None
    rows = Journal(settings=settings, images=complete.images)
    return complete, ResumedOutput(rows, None, paths, 0.0)


def _state(paths: OutputPaths) -> str | None:
    """A digest of the parts and of the list of failures; None for an output that is not finished,
    and for one on an object store.

    Of a part that is its size and its footer, which says where its pages are: parts are replaced,
    never changed. Whether pages are damaged is for ``verify`` to say.
    """
    if paths.is_remote:
        return None
    noted = marks(paths)
    store = LocalFolder(paths)
    sizes = store.sizes()
    if noted.get("finished") is not True or noted.get("replaces") or any(map(HiddenRows.of, sizes)):
        return None
    digest = hashlib.sha256()
    for name in sorted(sizes):
        digest.update(json.dumps([name, sizes[name], store.footer_digest(name)]).encode())
    if os.path.exists(paths.errors):
        with open(paths.errors, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
