"""The JSON Schema of each kind of row holds for what runs write, and for nothing else."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from blip2cli.cli.app import call
from blip2cli.options import RowKind
from blip2cli.tasks.row_schema import row_schema

SAMPLES = Path(__file__).parents[2] / "sample_images"
RUNS: tuple[tuple[RowKind, str], ...] = (
    ("caption", "caption set"),
    ("caption", "caption set/list.csv --keep alt --num-captions 2 --num-beams 2 --errors inline"),
    ("caption", "caption set --num-captions 2 --temperature 1 --rank-with tiny-itm --min-match 1"),
    ("ask", "ask set/list.csv -q 'a dog?' --shard 1/1"),
    ("ask", "ask set/list.csv -q 'is it {alt}?' --choices yes,no --choice-scores"),
    ("embed", "embed set --kind qformer --errors inline"),
    ("embed", "embed set --kind multimodal --text 'a cat' --model tiny-itm"),
    ("embed-texts", "embed --text 'a cat'"),
)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Any]]:
    """What a command writes about a picture and a file that is none."""
    (tmp_path / "set").mkdir()
    shutil.copy(SAMPLES / "cats.png", tmp_path / "set")
    (tmp_path / "set" / "broken.png").write_text("no picture")
    (tmp_path / "set" / "list.csv").write_text("file_name,alt\ncats.png,a cat\nbroken.png,x\n")
    monkeypatch.chdir(tmp_path)

    def run(words: str) -> list[Any]:
        model = "" if "--model" in words else "--model tiny"
        arguments = shlex.split(f"{words} {model} -o out.jsonl --overwrite --quiet --workers 0")
        if "--text" in words and "multimodal" not in words:
            arguments = shlex.split(f"{words} {model} -o out.jsonl --overwrite --quiet")
        assert call(arguments) in (0, 3)
        return [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]

    return run


@pytest.mark.parametrize(("kind", "words"), RUNS)
def test_rows_fit_their_schema(kind: RowKind, words: str, rows: Callable[[str], list[Any]]) -> None:
    found = rows(words)
    assert found
    for row in found:
        jsonschema.validate(row, row_schema(kind))
        assert list(row)[:1] == ["text" if kind == "embed-texts" else "file_name"]
    failed = Path("out.jsonl.errors")
    for line in failed.read_text().splitlines() if failed.exists() else ():
        jsonschema.validate(json.loads(line), row_schema("errors"))


@pytest.mark.parametrize("kind", get_args(RowKind))
def test_schemas_are_schemas(kind: RowKind, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["schema", kind]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == row_schema(kind)
    jsonschema.Draft202012Validator.check_schema(found)


@pytest.mark.parametrize(
    "wrong",
    [{"caption": 3}, {"flag": "odd"}, {"file_name": None}, {"width": 1.5}, {"more": [1]}],
)
def test_other_rows_do_not_fit(wrong: dict[str, Any]) -> None:
    good = {"file_name": "a", "width": 1, "height": 2, "caption": "x", "logprob": -1, "flag": ""}
    jsonschema.validate(good, row_schema("caption"))
    for row in (good | wrong, {k: v for k, v in good.items() if k != "flag"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(row, row_schema("caption"))


def test_a_kind_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["schema", "captions"]) == 2
    assert "ROWS has no value 'captions'; did you mean caption?" in capsys.readouterr().err
