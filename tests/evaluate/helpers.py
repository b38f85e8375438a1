"""What the tests of evaluation share: files of rows and references."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from blip2cli.cli.app import call
from blip2cli.evaluate.match_rows import MatchCounts, Matched, RowMatcher
from blip2cli.evaluate.read_references import read_references
from blip2cli.evaluate.read_rows import Table
from blip2cli.evaluate.references import References
from blip2cli.options import ColumnOptions

Row = dict[str, Any]


def write(path: Path, content: Any) -> Path:
    """JSON Lines of a list for ``.jsonl`` and what runs write beside it, JSON for the rest."""
    if path.name.endswith((".jsonl", ".errors")):
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(json.dumps(content))
    return path


def json_of(command: str, capsys: pytest.CaptureFixture[str], *arguments: object) -> Row:
    """What a command prints with ``--json``."""
    assert call([command, *map(str, arguments), "--json"]) == 0
    found: Row = json.loads(capsys.readouterr().out)
    return found


def printed_by(
    command: str, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str]:
    """The exit code of a command, and all that it prints."""
    code = call([command, *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def coco(captions: dict[int, Sequence[str]]) -> Row:
    """COCO caption annotations of images called as in COCO."""
    return {
        "images": [{"id": i, "file_name": f"COCO_val2014_{i:012}.jpg"} for i in captions],
        "annotations": [
            {"id": 10 * i + n, "image_id": i, "caption": text}
            for i, texts in captions.items()
            for n, text in enumerate(texts)
        ],
    }


def vqa(answers: dict[int, Sequence[str]], **more: Any) -> Row:
    """VQA annotations; three questions an image, whose id is that of the question over ten."""
    return {
        "annotations": [
            {
                "question_id": question,
                "image_id": question // 10,
                "question_type": "what is",
                "answer_type": "other",
                "answers": [
                    {"answer": text, "answer_confidence": "yes", "answer_id": n}
                    for n, text in enumerate(texts, 1)
                ],
                **more,
            }
            for question, texts in answers.items()
        ]
    }


def matched(
    rows: Path, against: Path, columns: Sequence[str] = (), **options: Any
) -> tuple[dict[str, str], MatchCounts, References]:
    """The text of every reference that has a row, by key; the counts; the references."""
    references = read_references(str(against))
    matcher = RowMatcher(Table.of("rows", (str(rows),)), references, ColumnOptions(**options))
    batches: list[Matched] = list(matcher.batches(columns))
    found = {
        references.keys[int(number)].as_py(): text
        for batch in batches
        for number, text in zip(batch.numbers, batch.texts, strict=True)
    }
    return found, matcher.counts, references
