"""The ids of images and questions in evaluation files: where they come from, which there are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from blip2cli.convert.formats.base import Examples, need
from blip2cli.convert.options import ConvertOptions
from blip2cli.errors import OptionError, SourceError
from blip2cli.sources.records import csv_records
from blip2cli.storage.text_encoding import from_utf8

Row = dict[str, Any]


def id_of(options: ConvertOptions, schema: pa.Schema, questions: bool) -> Callable[[Row], int]:
    """What gives a row its id: the map, the column, ``question_id``, or the name's last number.

    Raises OptionError or SourceError for a map or a column that is not there.
    """
    if options.id_map is not None:
        if options.id_column is not None:
            raise OptionError("--id-map and --id-column exclude each other; leave one out.")
        names = _names(options.id_map)
        need(schema, "file_name", "--id-map", "Use --id-column.")
        return lambda row: _mapped(row, names, options.id_map or "")
    column = options.id_column or ("question_id" if questions else None)
    if column is not None:
        need(schema, column, "the ids", "Name the column with --id-column.")
        return lambda row: _whole(row, column)
    need(schema, "file_name", "the ids", "Name a column of ids with --id-column.")
    return _number


def _number(row: Row) -> int:
    name = from_utf8(str(row["file_name"]))
    # As in COCO_val2014_000000391895.jpg. Only ASCII digits, which is what such names have.
    found = re.findall(r"[0-9]+", os.path.splitext(os.path.basename(name))[0])
    if not found:
        raise SourceError(
            f"The file_name {name!r} holds no number to take as id; give ids with --id-column or "
            "--id-map."
        )
    return int(found[-1])


def _whole(row: Row, column: str) -> int:
    try:
        value = row[column]
        return _as_int(value)
    except (ValueError, TypeError):
        raise SourceError(
            f"The {column} {row[column]!r} of {from_utf8(str(row.get('file_name')))!r} is no whole "
            "number; name another column with --id-column, or give ids with --id-map."
        ) from None


def _mapped(row: Row, names: dict[str, int], file: str) -> int:
    name = from_utf8(str(row["file_name"]))
    found = names.get(name, names.get(os.path.basename(name)))
    if found is None:
        raise SourceError(f"--id-map {file} has no id for {name!r}; add it.")
    return found


def _names(path: str) -> dict[str, int]:
    if path.lower().endswith((".csv", ".tsv")):
        names: dict[str, int] = {}
        try:
            for number, row in csv_records(path, "\t" if path.lower().endswith("tsv") else ","):
                key = next((k for k in ("id", "image_id", "question_id") if k in row), None)
                if "file_name" not in row or key is None:
                    raise SourceError(
                        f"--id-map {path} has no columns file_name and id; it has {', '.join(row)}."
                    )
                try:
                    names[str(row["file_name"])] = _as_int(row[key])
                except ValueError:
                    raise SourceError(
                        f"--id-map {path}, line {number}: {row[key]!r} is no whole number."
                    ) from None
        except OSError as error:
            raise OptionError(f"--id-map {path} cannot be read: {error.strerror}.") from None
        return names
    about = _json("--id-map", path)
    try:
        if isinstance(about, dict) and isinstance(about.get("images"), list):
            return {image["file_name"]: _as_int(image["id"]) for image in about["images"]}
        return {name: _as_int(value) for name, value in about.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise SourceError(
            f"--id-map {path} is neither an object of names and whole numbers nor COCO annotations."
        ) from None


def wanted_ids(path: str, questions: bool) -> set[int]:
    """The ids that annotations or questions are about. Raises OptionError, SourceError."""
    about = _json("--annotations", path)
    lists = (("questions", "question_id"), ("annotations", "question_id")) if questions else (
        ("images", "id"), ("annotations", "image_id")
    )  # fmt: skip
    for name, key in lists:
        if isinstance(about, dict) and isinstance(about.get(name), list):
            try:
                return {_as_int(one[key]) for one in about[name]}
            except (KeyError, TypeError, ValueError):
                continue
    what = "questions with question_id" if questions else "images with id"
    raise SourceError(f"--annotations {path} has no list of {what}; give the data set's own file.")


class Ids:
    """Sees to it that every id comes once, and that those there are are those wanted."""

    def __init__(self, wanted: set[int] | None, key: str, file: str | None) -> None:
        self._wanted, self._key, self._file = wanted, key, file
        self._seen: set[int] = set()

    def add(self, number: int, row: Row) -> None:
        """Raises SourceError for an id that came before, or that is not wanted."""
        name = from_utf8(str(row.get("file_name")))
        if number in self._seen:
            hint = (
                "an evaluation needs one caption an image"
                if self._key == "image_id"
                else "ids must differ between images, as in a --questions file or an --id-column"
            )
            raise SourceError(
                f"The {self._key} {number} comes twice, at last for {name!r}; {hint}."
            )
        self._seen.add(number)
        if self._wanted is not None and number not in self._wanted:
            raise SourceError(
                f"The {self._key} {number} of {name!r} is not in --annotations {self._file}; leave "
                "the row out, or give the annotations it belongs to."
            )

    def complete(self) -> None:
        """Raises SourceError that lists what is missing."""
        missing = Examples()
        for number in sorted((self._wanted or set()) - self._seen):
            missing.add(number)
        if missing.count:
            raise SourceError(
                f"{missing.count} of the {len(self._wanted or ())} {self._key}s in --annotations "
                f"{self._file} have no row: {missing}; run them, or give the annotations of these "
                "only."
            )


def _as_int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    if isinstance(value, str) and not re.fullmatch(r"\s*-?[0-9]+\s*", value):
        raise ValueError(value)
    return int(value)


def _json(option: str, path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return json.load(file)
    except OSError as error:
        raise OptionError(f"{option} {path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{option} {path} is not JSON ({error}).") from None
