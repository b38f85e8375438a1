"""The names of columns that hold paths of images, in manifests and in tables of images."""

from __future__ import annotations

IMAGE_COLUMN = "image"  # of a manifest it holds paths, of a table of images the images
NAME_COLUMNS = ("file_name", "path")  # that name the images of a table
# The column of paths of a manifest: the first of these that it has.
PATH_COLUMNS = (*NAME_COLUMNS, IMAGE_COLUMN)
PATH_COLUMNS_LISTED = f"{', '.join(PATH_COLUMNS[:-1])} or {PATH_COLUMNS[-1]}"
