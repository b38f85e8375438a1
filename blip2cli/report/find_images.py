"""Where the pictures of rows are: a folder, or the sources of the run, listed again."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, BinaryIO

from blip2cli.errors import OptionError, SourceError, option
from blip2cli.evaluate.read_references import clean_name
from blip2cli.options import PageOptions, SourceOptions
from blip2cli.sources import Listing
from blip2cli.sources.base import ImageRef
from blip2cli.sources.identity import place
from blip2cli.sources.members import safe_name
from blip2cli.storage.opening import is_remote
from blip2cli.storage.text_encoding import from_utf8, to_utf8

_MOST_LOOKED_AT = 1000  # entries of a folder, one of which may be what a run read


@dataclass(frozen=True)
class ImagePlaces:
    """A folder that names are relative to, or sources; neither: nobody knows."""

    root: str | None = None
    sources: SourceOptions | None = None
    stdin: BinaryIO | None = None
    typed: bool = False  # by the user, who may be mistaken

    @classmethod
    def of(cls, options: PageOptions, stdin: BinaryIO | None = None) -> ImagePlaces:
        """As the options say. Raises OptionError for a folder that is not there."""
        if options.source:
            sources = SourceOptions(
                sources=options.source,
                image_column=options.image_column,
                absolute_paths=options.absolute_paths,
            )
            return cls(None, sources, stdin, typed=True)
        root = options.image_root
        if root is not None and is_remote(root):
            raise OptionError(
                "image_root",
                f"{option('image_root')} {root} is on another machine",
                f"give it as {option('source')}",
            )
        if root is not None and not os.path.isdir(root):
            raise OptionError(
                "image_root", f"{option('image_root')} {root} is not a folder", "check the path"
            )
        return cls(root, typed=root is not None)

    @classmethod
    def of_run(cls, options: SourceOptions) -> ImagePlaces:
        """Those of a run that is over; paths on stdin are named from the current folder."""
        if "-" in options.sources:
            return cls(os.getcwd() if options.sources == ("-",) else None)
        # A page asks by name, and has the rows already that the others choose.
        return cls(None, replace(options, include=(), exclude=(), limit=None, shard=None, keep=()))

    def __bool__(self) -> bool:
        return self.root is not None or self.sources is not None

    def refs(self, names: Collection[str]) -> Iterator[ImageRef]:
        """The images called ``names``, each once, as far as they are there; named as there.

        Raises SourceError.
        """
        if self.root is not None:
            return self._below(self.root, names)
        return self._listed(set(names)) if self.sources is not None else iter(())

    def _below(self, root: str, names: Collection[str]) -> Iterator[ImageRef]:
        root = os.path.abspath(root)
        for name in names:
            raw = from_utf8(name)
            # No name leads out of the folder.
            if raw and safe_name(raw) == raw and "\0" not in raw:
                yield ImageRef(name, os.path.join(root, raw))

    def _listed(self, names: set[str]) -> Iterator[ImageRef]:
        assert self.sources is not None
        try:
            for ref in Listing.open(self.sources, self.stdin).refs():
                name = to_utf8(clean_name(ref.file_name))
                if name in names:
                    names.remove(name)
                    yield replace(ref, file_name=name)
                    if not names:
                        return
        except SourceError as error:
            field = "source" if error.field == "sources" else error.field
            raise SourceError(field, error.problem, error.remedy) from None


def search_images(identity: Any, beside: str) -> ImagePlaces:
    """The folder or file that an output says it was made from, if it lies close by.

    An output knows its sources by digests of their paths. The current folder, that of the output
    ``beside``, and what lies in them are compared.
    """
    base = identity.get("base") if isinstance(identity, dict) else None
    if not isinstance(base, str):
        return ImagePlaces()
    for folder in dict.fromkeys((os.getcwd(), os.path.dirname(os.path.abspath(beside)))):
        if place(folder) == base:
            return ImagePlaces(folder)
        try:
            with os.scandir(folder) as entries:
                found = [e.path for e in islice(entries, _MOST_LOOKED_AT) if place(e.path) == base]
        except OSError:
            continue
        for path in found:
            if os.path.isdir(path):
                return ImagePlaces(path)
            return ImagePlaces(None, SourceOptions(sources=(path,)))
    return ImagePlaces()
