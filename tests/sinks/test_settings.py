"""Settings of outputs, those of older versions among them."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import (
    METADATA_KEY,
    Settings,
    parquet_metadata,
    parquet_settings,
    read_settings,
    write_settings,
)


@pytest.mark.parametrize(
    ("stored", "settings"),
    [
        ({"num_return": 3}, {"num_captions": 3}),
        ({"questions": ["red?"]}, {"question": ["red?"]}),
        ({"questions_file": "q.csv"}, {"questions": "q.csv"}),
        ({"question": ["red?"]}, {"question": ["red?"]}),
        ({"questions": "q.csv"}, {"questions": "q.csv"}),
    ],
)
def test_settings_of_older_versions_have_the_names_of_today(
    stored: Settings, settings: Settings, tmp_path: Path
) -> None:
    paths = OutputPaths.of(str(tmp_path / "out.jsonl"))
    Path(paths.meta).write_text(json.dumps({"settings": stored}))
    assert read_settings(paths) == settings
    assert parquet_settings(parquet_metadata(stored)) == settings


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"settings": 3}'])
def test_damaged_settings_are_none(data: bytes, tmp_path: Path) -> None:
    paths = OutputPaths.of(str(tmp_path / "out.jsonl"))
    assert read_settings(paths) is None
    Path(paths.meta).write_bytes(data)
    assert read_settings(paths) is None
    assert parquet_settings({METADATA_KEY: data}) is None


@pytest.mark.parametrize("in_place", [False, True])
def test_a_failure_leaves_the_settings_of_the_output_that_is_in_place(
    in_place: bool, tmp_path: Path
) -> None:
    paths = OutputPaths.of(str(tmp_path / "out.jsonl"))
    Path(paths.final).write_text("old")
    Path(paths.meta).write_text(json.dumps({"settings": {"model": "old"}}))
    temporary = Path(paths.temporary())
    temporary.write_text("new")
    inode = temporary.stat().st_ino

    def replace() -> None:
        with write_settings(paths, {"model": "new"}, inode):
            if in_place:
                temporary.replace(paths.final)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        replace()
    assert read_settings(paths) == {"model": "new" if in_place else "old"}
    assert Path(paths.next_meta).exists() == in_place


def test_new_settings_stay_where_it_is_not_known_which_output_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the folder of the output cannot be reached after the rename."""
    paths = OutputPaths.of(str(tmp_path / "out.jsonl"))
    Path(paths.final).write_text("new")
    inode = Path(paths.final).stat().st_ino

    def unreachable(path: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def rename() -> None:
        with write_settings(paths, {"model": "new"}, inode):
            monkeypatch.setattr(os, "stat", unreachable)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        rename()
    monkeypatch.undo()
    assert read_settings(paths) == {"model": "new"}
