"""Reads references: COCO caption annotations, VQA annotations, verdicts, tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blip2cli.convert.examples import Examples
from blip2cli.errors import SourceError, either, option
from blip2cli.evaluate.read_rows import Table
from blip2cli.evaluate.references import WRONG, Kind, ReferenceBuilder, References
from blip2cli.sources.json_elements import json_elements

# Columns of tables that may hold the references, the first that is there.
CAPTION_COLUMNS = ("caption", "captions", "reference", "references", "text", "texts")
ANSWER_COLUMNS = ("answer", "answers", "label", "labels", "reference", "references")
TYPES = ("question_type", "answer_type")
# What a line of verdicts has beside the names: the text that was shown, what was said of it, the
# right text (null: not known).
VERDICT = ("text", "verdict", "label")


def read_references(
    path: str, field: str = "against", column: str | None = None, more: Sequence[str] = ()
) -> References:
    """The references of ``path``, which the option ``field`` names.

    ``column`` is the column of a table that holds the texts; ``more`` are columns to be stored
    beside them. Raises SourceError.
    """
    table = Table.of(field, (path,))
    if path.lower().endswith((".json", ".json.gz")):
        return _annotations(path, field, more)
    return _table(table, column, more)


# --- annotations in JSON -----------------------------------------------------------------------


def _annotations(path: str, field: str, more: Sequence[str]) -> References:
    """Both kinds of annotations, read element by element."""
    names = tuple(dict.fromkeys((*TYPES, *more)))
    builder = ReferenceBuilder(names)
    ids: dict[str, str] = {}
    found = {"captions": 0, "answers": 0, "results": 0}
    for _, one in json_elements(field, path):
        if not isinstance(one, dict):
            continue
        if "answers" in one and "question_id" in one:
            found["answers"] += 1
            key, image = _id(one["question_id"], field), _id(one.get("image_id", ""), field)
            columns = [_plain(one.get(name)) for name in names]
            builder.add(key, image, _texts(one["answers"], ""), columns)
        elif "caption" in one and "image_id" in one:
            found["captions" if "id" in one else "results"] += 1
            key = _id(one["image_id"], field)
            builder.add(key, key, [str(one["caption"])], [None] * len(names))
        elif "file_name" in one and "id" in one:
            ids[str(one["file_name"])] = _id(one["id"], field)
        elif "answer" in one and "question_id" in one:
            found["results"] += 1
    if found["results"] and not found["answers"] and not found["captions"]:
        raise _swapped(field, path, "a file of results, not of annotations")
    if not len(builder):
        raise SourceError(
            field,
            f"{path!r} holds no captions with image_id and no answers with question_id",
            "give COCO caption annotations, VQA annotations, or a table with file_name and a text",
        )
    if found["captions"] and found["answers"]:
        raise SourceError(field, f"{path!r} holds captions and answers", "give one kind")
    kind: Kind = "captions" if found["captions"] else "answers"
    by = "image_id" if found["captions"] else "question_id"
    # The evaluation goes through the images in this order, which captions that end in "a." feel.
    order = ids.values() if kind == "captions" else ()
    return builder.build(path, kind, by, ids, first_counts=kind == "answers", order=order)


def _id(value: Any, field: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise SourceError(
            field, f"The id {value!r} is neither a number nor a text", "check the file"
        )
    return str(value)


# --- tables ----------------------------------------------------------------------------------


def _table(table: Table, column: str | None, more: Sequence[str]) -> References:
    names = table.columns
    path = table.paths[0]
    questions = [name for name in ("question_id", "question") if name in names]
    if column is None and set(VERDICT) <= set(names):
        return _verdicts(table, questions)
    column = column or _text_column(table, names, bool(questions))
    kind: Kind | None = "answers" if questions else None
    if "file_name" not in names and "question_id" not in names:
        raise SourceError(
            table.field,
            f"{str(table)!r} has no column file_name; it has {', '.join(names) or 'none'}",
            "name the column of the images so",
        )
    if column not in names:
        raise SourceError(
            table.field,
            f"{str(table)!r} has no column {column}; it has {', '.join(names)}",
            f"name the one that holds the texts with {option('reference_column')}",
        )
    by = _key_of_table(table, names, questions)
    carried = tuple(name for name in dict.fromkeys((*TYPES, *more)) if name in names)
    builder = ReferenceBuilder(carried)
    parts = {"file_name": "", "question_id": "", "question": ""} | dict.fromkeys(carried, "")
    wanted = list(dict.fromkeys([*(p for p in parts if p in names), column]))
    without, rows = Examples(), 0
    for count, batch in table.batches(wanted):
        rows += count
        for number in range(count):
            row = {name: batch[name][number] for name in wanted}
            texts = _texts(row[column])
            name = clean_name(row.get("file_name"))
            if not texts:
                without.add(name or row.get("question_id"))
                continue
            key = row_key(by, row)
            image = name if "file_name" in names else key
            builder.add(key, image, texts, [_plain(row.get(each)) for each in carried])
    if not len(builder):
        raise SourceError(
            table.field, f"No row of {str(table)!r} has a text in {column}", "check it"
        )
    notes = []
    if without.count:
        notes.append(f"{without.count} rows of {path} have no text in {column}: {without}.")
    return builder.build(path, kind, by, None, notes)


def _verdicts(table: Table, questions: Sequence[str]) -> References:
    """What a page of ``report`` exports: a right or corrected text is a reference, a wrong one is
    known to be none."""
    names = table.columns
    by = _key_of_table(table, names, questions)
    found: dict[str, tuple[str, dict[str, None], dict[str, None]]] = {}
    wanted = [name for name in ("file_name", "question_id", "question") if name in names]
    for count, batch in table.batches([*wanted, *VERDICT]):
        for number in range(count):
            row = {name: values[number] for name, values in batch.items()}
            text, verdict, label = (_plain(row[name]) for name in VERDICT)
            if verdict not in ("right", "corrected", "wrong") or (
                verdict == "corrected" and not label
            ):
                raise SourceError(
                    table.field,
                    f"{str(table)!r} has the verdict {verdict!r} with the label {label!r}",
                    "a verdict is right, wrong, or corrected with the right text as its label",
                )
            name, key = clean_name(row.get("file_name")), row_key(by, row)
            image = name if "file_name" in names else key
            _, right, wrong = found.setdefault(key, (image, {}, {}))
            if verdict == "wrong":
                wrong[(text or "").strip()] = None
            if label or verdict == "right":
                right[label or text or ""] = None
    builder = ReferenceBuilder((WRONG,))
    for key, (image, right, wrong) in found.items():
        builder.add(key, image, list(right), ["\0".join(wrong) if wrong else None])
    if not len(builder):
        raise SourceError(table.field, f"{str(table)!r} holds no verdict", "check it")
    return builder.build(table.paths[0], "answers" if questions else None, by)


def _text_column(table: Table, names: Sequence[str], questions: bool) -> str:
    wanted = list(dict.fromkeys((*(() if questions else CAPTION_COLUMNS), *ANSWER_COLUMNS)))
    found: str | None = next((name for name in wanted if name in names), None)
    if found is None:
        raise SourceError(
            table.field,
            f"{str(table)!r} has no column {either(wanted)}; it has {', '.join(names) or 'none'}",
            f"name the one that holds the texts with {option('reference_column')}",
        )
    return found


def _key_of_table(table: Table, names: Sequence[str], questions: Sequence[str]) -> str:
    """Which of ``KEYS`` tells the rows apart: the id of a question where every row has one."""
    if "question_id" in questions and "question" in questions:
        ids = [batch["question_id"] for _, batch in table.batches(["question_id"])]
        if any(value is None or value == "" for values in ids for value in values):
            questions = ["question"]
    if not questions:
        return "file_name"
    if "file_name" not in names:
        return "question_id"
    return f"file_name and {questions[0]}"


def _texts(value: Any, blank: str | None = None) -> list[str]:
    """The texts of a cell: one, or a list of texts or of objects with a text; none for null.

    ``blank`` stands for texts without letters; None leaves them out.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [value] if value.strip() else [] if blank is None else [blank]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one, blank)]
    if isinstance(value, dict):  # as VQA annotations and candidates have them
        names = ("answer", "text", "caption")
        return _texts(next((value[name] for name in names if name in value), None), blank)
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return [_plain(value) or ""]


def _plain(value: Any) -> str | None:
    """A number or text as text; whole floats as pandas writes them lose their ``.0``."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


# --- keys --------------------------------------------------------------------------------------


def clean_name(value: Any) -> str:
    """A file name as keys hold it."""
    return str(value or "").removeprefix("./")


def row_key(by: str, row: Any) -> str:
    """The key of a row or a table's reference whose keys are those of ``by``."""
    if by == "file_name":
        return clean_name(row.get("file_name"))
    if by in ("question_id", "image_id"):
        return _plain(row.get(by)) or ""
    last = by.rpartition(" ")[2]
    return f"{clean_name(row.get('file_name'))}\0{(_plain(row.get(last)) or '').strip()}"


def _swapped(field: str, path: str, what: str) -> SourceError:
    return SourceError(
        field,
        f"{path!r} is {what}",
        f"the rows come first, and the references behind {option('against')}",
    )
