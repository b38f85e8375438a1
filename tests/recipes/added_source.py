"""A kind of source: a module with ``open_source``, and a line in the table of readers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blip2cli.errors import SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import readers
from blip2cli.sources.base import ImageRef, Source, absolute, name_below
from tests.recipes.register import put_module, run_command


@dataclass(frozen=True)
class Playlist(Source):
    """The paths of an ``.m3u`` file, whose comments begin with ``#``."""

    paths: tuple[str, ...]

    def refs(self, base: str) -> Iterator[ImageRef]:
        for path in self.paths:
            yield ImageRef(name_below(path, base), path)

    def no_images(self) -> SourceError:
        return SourceError("sources", f"{self.text!r} names no image", "write one path a line")


def open_source(text: str, options: SourceOptions) -> Source:
    """The images of a playlist, named relative to its folder."""
    root = absolute(str(Path(text).parent))
    lines = Path(text).read_text().splitlines()
    paths = tuple(f"{root}/{line}" for line in lines if line and not line.startswith("#"))
    return Playlist(text, root, paths)


if __name__ == "__main__":
    put_module("blip2cli.sources.readers.playlist")
    playlist = readers.Reader("playlist", "a playlist (.m3u)", lambda text: text.endswith(".m3u"))
    readers.READERS = (playlist, *readers.READERS)
    run_command()
