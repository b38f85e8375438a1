"""Local copies of outputs on object stores, for ``verify`` and ``convert``, which read files.

Everything that belongs to an output is copied, so that an unfinished one is verified and salvaged
as a local one is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

from blip2cli.convert.concat import natural_key
from blip2cli.errors import Blip2CliError, SourceError
from blip2cli.sinks.check_objects import check_folder_url
from blip2cli.sinks.failure_list_file import open_list
from blip2cli.sinks.folder_store import LocalFolder, open_store
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sources.patterns import has_magic
from blip2cli.storage.object_requests import split_url
from blip2cli.storage.opening import connect, is_remote, protocol_of
from blip2cli.storage.secrets import hide_secrets
from blip2cli.storage.url_retries import with_retries


@dataclass
class LocalCopies:
    """The paths of the copies, in place of URLs, and of what was local already."""

    paths: list[str] = field(default_factory=list)
    _urls: dict[str, str] = field(default_factory=dict)  # by the beginnings of copies' paths

    def add(self, path: str, url: str) -> None:
        """The copy of ``url``; without one it is local itself."""
        self.paths.append(path)
        if path != url:
            self._urls[os.path.dirname(path.rstrip("/"))] = url.rstrip("/").rpartition("/")[0]

    def named(self, text: str) -> str:
        """A text for people about the copies, with the URLs in their place."""
        for path, url in self._urls.items():
            text = text.replace(path, hide_secrets(url))
        return text


@contextmanager
def local_copies(texts: Sequence[str]) -> Iterator[LocalCopies]:
    """Copy those outputs that are URLs into a temporary folder while the block runs.

    What errors say is about the URLs. Raises SourceError for a URL without an output.
    """
    with tempfile.TemporaryDirectory(prefix="blip2cli-") as folder:
        copies = LocalCopies()
        try:
            for number, text in enumerate(chain.from_iterable(map(_matches, texts))):
                place = os.path.join(folder, str(number))
                copies.add(_copy(text, place) if is_remote(text) else text, text)
            yield copies
        except Blip2CliError as error:
            error.problem, error.remedy = copies.named(error.problem), copies.named(error.remedy)
            raise


def _matches(text: str) -> list[str]:
    """The outputs on a store that ``text`` means, which may be a pattern. Raises SourceError."""
    if not (is_remote(text) and has_magic(text)):
        return [text]
    filesystem, path = connect(text.rstrip("/"))
    filesystem.invalidate_cache()
    found = sorted(with_retries(text, lambda: filesystem.glob(path)), key=natural_key)
    if not found:
        raise SourceError(
            "sources", f"No folder matches the pattern {hide_secrets(text)!r}", "check it"
        )
    return [f"{protocol_of(text)}://{name}/" for name in found]


def _copy(url: str, place: str) -> str:
    """Copy an output into the new folder ``place``; its path there. Raises SourceError."""
    check_folder_url(url, SourceError, "sources")
    paths = OutputPaths.of(url)
    os.mkdir(place)
    copy = OutputPaths.of(os.path.join(place, os.path.basename(paths.final)) + "/")
    store, local = open_store(paths), LocalFolder(copy)
    local.prepare()
    names = list(store.sizes())
    for name in names:
        with open(local.shown(name), "wb") as file, store.source(name) as source:
            shutil.copyfileobj(source, file, 8 << 20)
    folder, name = split_url(paths.meta)
    settings = folder.read(name)
    if settings is not None:
        with open(copy.meta, "wb") as file:
            file.write(settings)
    elif not names:
        problem = f"There is no output at {hide_secrets(url)!r}"
        raise SourceError("sources", problem, "check the name")
    try:
        with open(copy.errors, "wb") as file, open_list(paths) as failures:
            shutil.copyfileobj(failures, file)
    except FileNotFoundError:
        os.unlink(copy.errors)
    return copy.final + "/"
