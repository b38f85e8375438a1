"""JSON files read element by element: what ``json`` makes of the whole, at any window."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from blip2cli.errors import SourceError
from blip2cli.sources.json_elements import json_elements

CONTENT: dict[str, Any] = {
    "info": {"list": [1, 2], "text": 'a "quoted" [one], \\ {two}'},
    "empty": [],
    "numbers": [1, -2.5, 1e3, None, True, "é\n"],
    "version": 12,
    "objects": [{"a": [{"b": "]"}]}, {}],
}
ELEMENTS = [(name, one) for name in ("numbers", "objects") for one in CONTENT[name]]


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_elements_of_all_lists(tmp_path: Path, piece: int, indent: int | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONTENT, indent=indent))
    assert list(json_elements("against", str(path), piece)) == ELEMENTS
    path.write_text(json.dumps(CONTENT["numbers"]))
    assert [one for _, one in json_elements("against", str(path), piece)] == CONTENT["numbers"]


def test_gzipped(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(json.dumps(CONTENT).encode()))
    assert list(json_elements("against", str(path))) == ELEMENTS


@pytest.mark.parametrize(
    "text", ["", "12", '{"a": [1, 2', '{"a": [1 2]}', '{"a" 1}', "[1] 2", "[1,]", "\xff"]
)
def test_what_is_no_json_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError, match="cannot be read as JSON") as caught:
        list(json_elements("against", str(path)))
    assert caught.value.field == "against"
