"""Checks of options that are about some kinds of sources only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from blip2cli.errors import OptionError, option
from blip2cli.sources.base import Source
from blip2cli.storage.opening import is_remote

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions


def check_fitting(options: SourceOptions, sources: Sequence[Source]) -> None:
    """Raise OptionError for an option about other kinds of sources than these."""
    root = options.image_root
    if root is not None and not any(source.has_rows for source in sources):
        raise OptionError(
            "image_root",
            f"{option('image_root')} is about the paths in manifests, and none is given",
            "leave it out",
        )
    if root is not None and not is_remote(root) and not os.path.isdir(root):
        raise OptionError("image_root", f"{option('image_root')} {root} is not a folder")
    if options.split is not None and not any(source.commit for source in sources):
        raise OptionError(
            "split",
            f"{option('split')} is about data sets of the hub, and none is given",
            "write hf://datasets/OWNER/NAME, or leave it out",
        )
