"""Paths that a manifest or a table names, relative to its own folder.

They stay within that folder unless ``absolute_paths`` allows otherwise, so that a manifest from
elsewhere cannot make the tool read arbitrary files. ``..`` is taken out of a path as text, without
looking at the disk; links inside the folder are followed, as in folders.
"""

from __future__ import annotations

import os
import posixpath
from urllib.parse import unquote

from blip2cli.sources.base import absolute
from blip2cli.storage.opening import is_remote

OUTSIDE = "Its path leads out of the manifest's folder, which was not allowed."


def file_location(text: str) -> str:
    """The location of the file ``text``: a URL, or its absolute path."""
    return text if is_remote(text) else absolute(text)


def normal_path(written: str) -> str:
    """A path as text without ``.``, doubled slashes and what ``..`` can take back; URLs stay.

    ``file://`` URLs are paths, and ``~/`` is the home folder.
    """
    if written[:7].lower() == "file://":
        host, slash, path = written[7:].partition("/")
        if slash and host in ("", "localhost"):
            written = "/" + unquote(path, errors="surrogateescape")
    elif written.startswith("~/"):
        written = os.path.expanduser(written)
    if is_remote(written):
        return written
    name = posixpath.normpath(written)
    return "/" + name.lstrip("/") if name.startswith("/") else name


def locate(folder: str, name: str, anywhere: bool) -> str | None:
    """The location of the normal path ``name`` relative to ``folder``.

    None when it leads out of the folder, unless it may lie ``anywhere``.
    """
    absolute_name = is_remote(name) or name.startswith("/")
    if not absolute_name and name != ".." and not name.startswith("../"):
        return f"{folder.rstrip('/')}/{name}"
    if not anywhere:
        return None
    if absolute_name:
        return name
    scheme, separator, rest = folder.rpartition("://")
    return scheme + separator + posixpath.normpath(f"{rest}/{name}")
