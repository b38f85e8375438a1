"""The folder that names start at when several sources are given."""

from __future__ import annotations

import os
from collections.abc import Sequence

from blip2cli.errors import SourceError
from blip2cli.sources.base import Source
from blip2cli.storage.opening import is_remote


def common_parent(sources: Sequence[Source]) -> str:
    """Return the deepest folder, or URL, that the roots of all sources lie in.

    Raises SourceError for local paths beside URLs and for URLs of different buckets or hosts:
    they have nothing in common but what does not belong into names.
    """
    roots = [source.root for source in sources]
    if not any(is_remote(root) for root in roots):
        return os.path.commonpath(roots)
    protocol, _, first = roots[0].partition("://")
    common = first.split("/")
    for source in sources[1:]:
        other, _, place = source.root.partition("://")
        same = [one == two for one, two in zip(common, place.split("/"), strict=False)]
        common = common[: [*same, False].index(False)]
        if other != protocol or not common:
            raise SourceError(
                "sources",
                f"{sources[0].text!r} and {source.text!r} have no common parent (a bucket, or the "
                "local disk) that their images could be named from",
                "run them apart",
            )
    return f"{protocol}://{'/'.join(common)}"
