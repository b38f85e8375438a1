"""Paths that a manifest or a table names, relative to its own folder.

They stay within that folder unless ``absolute_paths`` allows otherwise, so that a manifest from
elsewhere cannot make the tool read arbitrary files. ``..`` is taken out of a path as text, without
looking at the disk; links inside the folder are followed, as in folders.
"""

from __future__ import annotations

import posixpath

from blip2cli.errors import option
from blip2cli.sources.base import absolute
from blip2cli.storage.opening import is_remote

OUTSIDE = f"Its path leads out of the manifest's folder; {option('absolute_paths')} allows that."


def file_location(text: str) -> str:
    """The location of the file ``text``: a URL, or its absolute path."""
    return text if is_remote(text) else absolute(text)


def normal_path(written: str) -> str:
    """A path as text without ``.``, doubled slashes and what ``..`` can take back; URLs stay."""
    if is_remote(written):
        return written
    name = posixpath.normpath(written)
    return "/" + name.lstrip("/") if name.startswith("/") else name


def location_inside(folder: str, name: str) -> str | None:
    """The location of the normal path ``name`` below ``folder``; None when it leads out of it."""
    if is_remote(name) or name == ".." or name.startswith(("/", "../")):
        return None
    return f"{folder.rstrip('/')}/{name}"


def location_anywhere(folder: str, name: str) -> str:
    """The location of the normal path ``name`` relative to ``folder``, even outside of it."""
    if is_remote(name) or name.startswith("/"):
        return name
    scheme, separator, rest = folder.rpartition("://")
    return scheme + separator + posixpath.normpath(f"{rest}/{name}")
