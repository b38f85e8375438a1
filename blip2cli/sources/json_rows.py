"""Rows of manifests in JSON: the objects of a list, as LLaVA is trained on, or COCO's images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from blip2cli.errors import SourceError
from blip2cli.sources.json_elements import json_elements
from blip2cli.sources.records import BadRow, Record

_LISTS = ("", "images")  # the whole file, or that of an object


def element_records(location: str) -> Iterator[Record]:
    """The objects of the list in a JSON file, numbered from 1; see ``records``.

    Conversations about no image are passed over. Where the file breaks off there is a ``BadRow``.
    """
    number = 0
    try:
        for name, value in json_elements("sources", location):
            if name not in _LISTS or _has_no_image(value):
                continue
            number += 1
            if isinstance(value, dict):
                yield number, value
            else:
                yield number, BadRow(f"expected an object, found {str(value)[:40]}")
    except SourceError as error:
        if not number or isinstance(error, OSError):
            raise
        yield number + 1, BadRow(f"{error.problem}; what follows is lost")


def _has_no_image(value: Any) -> bool:
    return isinstance(value, dict) and "conversations" in value and not value.get("image")
