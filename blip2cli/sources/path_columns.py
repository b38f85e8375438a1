"""The names of columns that hold paths of images, in manifests and in tables of images."""

from __future__ import annotations

from collections.abc import Iterable

from blip2cli.errors import SourceError, option

IMAGE_COLUMN = "image"  # of a manifest it holds paths, of a table of images the images
NAME_COLUMNS = ("file_name", "path")  # that name the images of a table
# The column of paths of a manifest: the first of these that it has.
PATH_COLUMNS = (*NAME_COLUMNS, IMAGE_COLUMN)
PATH_COLUMNS_LISTED = f"{', '.join(PATH_COLUMNS[:-1])} or {PATH_COLUMNS[-1]}"


def path_column(text: str, columns: Iterable[str], chosen: str | None) -> str:
    """The column that holds paths. Raises SourceError that names the existing columns."""
    existing = list(columns)
    for name in (chosen,) if chosen is not None else PATH_COLUMNS:
        if name in existing:
            return name
    needed = chosen if chosen is not None else PATH_COLUMNS_LISTED
    raise SourceError(
        "image_column",
        f"The manifest {text!r} has no column {needed}",
        f"it has {', '.join(existing)}. Name the column of paths with {option('image_column')}",
    )
