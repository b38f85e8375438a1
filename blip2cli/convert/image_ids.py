"""Ids of images and questions in evaluation files: from a map, a column or file names."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from blip2cli.convert.base import require_column
from blip2cli.convert.examples import Examples
from blip2cli.convert.images import Row
from blip2cli.errors import OptionError, SourceError, option
from blip2cli.options import ColumnOptions
from blip2cli.sources.csv_rows import csv_dialect, csv_records
from blip2cli.sources.records import BadRow
from blip2cli.storage.text_encoding import from_utf8


def id_getter(options: ColumnOptions, schema: pa.Schema, questions: bool) -> Callable[[Row], int]:
    """The function that gives a row its id: by the map, the column, or the name's last number.

    Raises OptionError or SourceError for a map or a column that is not there.
    """
    if options.id_map is not None:
        if options.id_column is not None:
            raise OptionError(
                "id_map",
                f"{option('id_map')} and {option('id_column')} exclude each other",
                "leave one out",
            )
        names = _read_map(options.id_map)
        require_column(schema, "file_name", option("id_map"), f"use {option('id_column')}")
        return lambda row: _from_map(row, names, options.id_map or "")
    column = options.id_column or ("question_id" if questions else None)
    if column is not None:
        require_column(schema, column, "the ids", f"name the column with {option('id_column')}")
        return lambda row: _from_column(row, column)
    remedy = f"name a column of ids with {option('id_column')}"
    require_column(schema, "file_name", "the ids", remedy)
    return lambda row: last_number(from_utf8(str(row["file_name"])))


def last_number(name: str) -> int:
    """The last number in a file's name, its id where nothing else says one. Raises SourceError."""
    # As in COCO_val2014_000000391895.jpg. Only ASCII digits, which is what such names have.
    found = re.findall(r"[0-9]+", os.path.splitext(os.path.basename(name))[0])
    if not found:
        raise SourceError(
            "id_column",
            f"The file_name {name!r} holds no number to take as id",
            f"give ids with {option('id_column')} or {option('id_map')}",
        )
    return int(found[-1])


def _from_column(row: Row, column: str) -> int:
    try:
        return _as_int(row[column])
    except (ValueError, TypeError):
        raise SourceError(
            "id_column",
            f"The {column} {row[column]!r} of {from_utf8(str(row.get('file_name')))!r} is no whole "
            "number",
            f"name another column with {option('id_column')}, or give ids with {option('id_map')}",
        ) from None


def _from_map(row: Row, names: dict[str, int], file: str) -> int:
    name = from_utf8(str(row["file_name"]))
    found = names.get(name, names.get(os.path.basename(name)))
    if found is None:
        raise SourceError("id_map", f"{option('id_map')} {file} has no id for {name!r}", "add it")
    return found


def _read_map(path: str) -> dict[str, int]:
    given = f"{option('id_map')} {path}"
    if path.lower().endswith((".csv", ".tsv")):
        names: dict[str, int] = {}
        with _reading_errors("id_map", path):
            dialect = csv_dialect(path, "\t" if path.lower().endswith("tsv") else ",")
            for number, row in csv_records(path, dialect):
                if isinstance(row, BadRow):
                    problem = f"{given}, line {number}: {row.problem}"
                    raise SourceError("id_map", problem, row.remedy)
                key = next((k for k in ("id", "image_id", "question_id") if k in row), None)
                if "file_name" not in row or key is None:
                    problem = f"{given} has no columns file_name and id; it has {', '.join(row)}"
                    raise SourceError("id_map", problem)
                try:
                    names[str(row["file_name"])] = _as_int(row[key])
                except ValueError:
                    problem = f"{given}, line {number}: {row[key]!r} is no whole number"
                    raise SourceError("id_map", problem) from None
        return names
    about = _read_json("id_map", path)
    try:
        if isinstance(about, dict) and isinstance(about.get("images"), list):
            return {image["file_name"]: _as_int(image["id"]) for image in about["images"]}
        return {name: _as_int(value) for name, value in about.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        problem = f"{given} is neither an object of names and whole numbers nor COCO annotations"
        raise SourceError("id_map", problem) from None


def annotated_ids(path: str, questions: bool) -> set[int]:
    """The ids that annotations or questions are about. Raises OptionError, SourceError."""
    about = _read_json("annotations", path)
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
    raise SourceError(
        "annotations",
        f"{option('annotations')} {path} has no list of {what}",
        "give the data set's own file",
    )


class IdCheck:
    """Checks that every id comes once, and that they are those of the annotations."""

    def __init__(self, annotated: set[int] | None, key: str, file: str | None) -> None:
        """``annotated`` are the ids in ``file``; None without annotations."""
        self._annotated, self._key, self._file = annotated, key, file
        self._seen: set[int] = set()

    def add(self, number: int, row: Row) -> None:
        """Raises SourceError for an id that came before, or that has no annotation."""
        name = from_utf8(str(row.get("file_name")))
        if number in self._seen:
            hint = (
                "an evaluation needs one caption an image"
                if self._key == "image_id"
                else "ids must differ between images, as in a file of "
                f"{option('questions')} or an {option('id_column')}"
            )
            problem = f"The {self._key} {number} comes twice, at last for {name!r}"
            raise SourceError("sources", problem, hint)
        self._seen.add(number)
        if self._annotated is not None and number not in self._annotated:
            raise SourceError(
                "annotations",
                f"The {self._key} {number} of {name!r} is not in {option('annotations')} "
                f"{self._file}",
                "leave the row out, or give the annotations it belongs to",
            )

    def complete(self) -> None:
        """Raises SourceError that lists what is missing."""
        missing = Examples()
        for number in sorted((self._annotated or set()) - self._seen):
            missing.add(number)
        if missing.count:
            raise SourceError(
                "annotations",
                f"{missing.count} of the {len(self._annotated or ())} {self._key}s in "
                f"{option('annotations')} {self._file} have no row: {missing}",
                "run them, or give the annotations of these only",
            )


def _as_int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    if isinstance(value, str) and not re.fullmatch(r"\s*-?[0-9]+\s*", value):
        raise ValueError(value)
    return int(value)


def _read_json(field: str, path: str) -> Any:
    with _reading_errors(field, path), open(path, "rb") as file:
        try:
            return json.load(file)
        except (ValueError, RecursionError) as error:
            raise SourceError(field, f"{option(field)} {path} is not JSON ({error})") from None


@contextmanager
def _reading_errors(field: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = f"{option(field)} {path} cannot be read: {error.strerror}"
        raise OptionError(field, problem) from None
