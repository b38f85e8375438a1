"""Rows as dictionaries, objects, a table and HTML: the same as the command's."""

from __future__ import annotations

import base64
import dataclasses
import io
import pickle
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from blip2cli import AnswerRow, Blip2, CaptionRow
from blip2cli.api import Candidate, Choice, ChoiceScore
from blip2cli.cli.app import call
from blip2cli.errors import ImageError, OptionError
from blip2cli.storage.hash_set import OCCURRENCE, ORDINAL
from blip2cli.tasks.row_schema import row_schema

PHOTOS = Path(__file__).parents[2] / "sample_images"


@pytest.fixture(scope="module")
def tiny() -> Blip2:
    return Blip2.load("tiny", device="cpu")


@pytest.fixture
def broken(tmp_path: Path) -> list[str]:
    """Two good images, and one between them that is none."""
    (tmp_path / "b.jpg").write_text("this is no picture")
    return [str(PHOTOS / "cats.png"), str(tmp_path / "b.jpg"), str(PHOTOS / "night.png")]


@pytest.mark.parametrize(("kind", "row"), [("caption", CaptionRow), ("ask", AnswerRow)])
def test_objects_have_a_field_for_every_column_there_is(kind: Any, row: Any) -> None:
    columns = row_schema(kind)["properties"].keys() - {OCCURRENCE, ORDINAL}
    assert {field.name for field in dataclasses.fields(row)} == columns


def test_rows_are_those_of_the_command(tiny: Blip2, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    several = {"num_beams": 3, "num_captions": 2}
    flags = ["--num-beams", "3", "--num-captions", "2", "--device", "cpu"]
    assert call(["caption", str(PHOTOS), "--model", "tiny", "-o", str(out), *flags]) == 0
    expected = pq.read_table(out)
    names = expected["file_name"].to_pylist()
    rows = tiny.caption([PHOTOS / name for name in names], **several)
    table = rows.as_table()
    assert table.schema.equals(expected.schema)
    assert table.drop(["file_name"]).equals(expected.drop(["file_name"]))
    assert rows.as_table().to_pylist() == list(rows)


def test_rows_are_objects_with_typed_attributes(tiny: Blip2) -> None:
    rows = tiny.caption(PHOTOS / "cats.png", num_beams=3, num_captions=2)
    (row,) = rows.as_objects()
    assert (row.caption, row.width, row.error) == (rows[0]["caption"], 512, None)
    assert row.candidates is not None
    assert row.candidates[0] == Candidate(rows[0]["caption"], rows[0]["logprob"])
    asked = tiny.ask(
        PHOTOS / "cats.png", "how many cats?", choices=["one", "two"], choice_scores=True
    )
    (answer,) = asked.as_objects()
    assert answer.probabilities is not None
    assert answer.choice_scores is not None
    assert isinstance(answer.probabilities[0], Choice)
    assert isinstance(answer.choice_scores[0], ChoiceScore)
    assert {each.choice for each in answer.choice_scores} == {"one", "two"}


def test_there_may_be_no_rows(tiny: Blip2) -> None:
    rows = tiny.caption([])
    assert rows == []
    assert rows.as_objects() == []
    assert rows.as_table().schema.names[3:] == ["caption", "logprob", "flag"]
    assert rows._repr_html_().startswith("<table>")


def test_images_that_fail_are_errors_or_rows(tiny: Blip2, broken: list[str]) -> None:
    with pytest.raises(ImageError, match=r"b\.jpg: The content is "):
        tiny.caption(broken)
    rows = tiny.caption(broken, errors="inline")
    assert [row["caption"] is None for row in rows] == [False, True, False]
    assert [row["error"].partition(":")[0] for row in rows] == ["", "not_an_image", ""]
    assert rows.as_table()["error"].to_pylist() == [row["error"] for row in rows]
    assert rows.as_objects()[1].width is None
    answers = tiny.ask(broken, ["how many?", "which?"], errors="inline")
    assert [row["question"] for row in answers] == ["how many?", "which?"] * 3
    assert [bool(row["error"]) for row in answers] == [False, False, True, True, False, False]
    assert tiny.caption([None], errors="inline")[0]["error"].startswith("missing: ")
    with pytest.raises(OptionError, match="errors has no value 'ignore'; choose raise or inline"):
        tiny.caption(broken, errors="ignore")  # type: ignore[arg-type]


def test_failed_rows_are_those_of_the_command(
    tiny: Blip2, broken: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "rows.parquet"
    flags = ["--errors", "inline", "--device", "cpu", "--model", "tiny"]
    assert call(["caption", *broken, "-o", str(out), *flags]) == 3
    expected = pq.read_table(out)
    table = tiny.caption(broken, errors="inline").as_table()
    assert table.schema.equals(expected.schema)
    assert table.drop(["file_name"]).equals(expected.drop(["file_name"]))


def test_a_notebook_shows_rows_with_thumbnails(
    tiny: Blip2, broken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = Image.new("RGB", (400, 100), "red")
    assert "<img" not in tiny.caption(wide)._repr_html_()
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    rows = tiny.caption([wide, broken[1], *[wide] * 30], errors="inline")
    rows[0]["caption"] = "<script>\x1b"
    shown = rows._repr_html_()
    assert "&lt;script&gt;\\x1b" in shown
    assert "… and 12 more" in shown
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', shown)
    assert len(found) == 19  # of 20 rows that are shown one has no image
    thumbnail = Image.open(io.BytesIO(base64.b64decode(found[0])))
    assert thumbnail.size == (96, 24)
    red, green, blue = thumbnail.getpixel((48, 12))  # type: ignore[misc]
    assert red > 200 > 60 > max(green, blue)
    again = pickle.loads(pickle.dumps(rows))
    assert (again, again._repr_html_()) == (rows, shown)
