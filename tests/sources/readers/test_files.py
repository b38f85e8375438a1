from __future__ import annotations

from pathlib import Path

import pytest

from blip2cli.errors import SourceError
from tests.sources.helpers import failure, refs


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("a.XLSX", "save it as .csv"), ("a.7z", "unpack it first")],
)
def test_kinds_that_are_not_read_are_named(name: str, remedy: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(SourceError, match=f"files are not read; {remedy}"):
        refs(tmp_path / name)
    found = refs(tmp_path / name, tmp_path / "a.png")  # a shell's * takes it in
    assert [ref.file_name for ref in found] == [name, "a.png"]
    assert failure(found[0]) == "unsupported_format"
