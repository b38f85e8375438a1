"""Settings of outputs, those of older versions among them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blip2cli.errors import OutputError
from blip2cli.sinks import check_settings
from blip2cli.sinks.differences import differences
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import (
    Settings,
    common_settings,
    parquet_metadata,
    parquet_settings,
    read_settings,
    update_settings,
    write_settings,
)
from blip2cli.sinks.settings_file import METADATA_KEY, claim_failures, owns_failures
from blip2cli.sources.identity import identify

EVERYTHING = Settings(
    {"model": "tiny", "prompt": "caf\udce9", "text": ["\\udce9"]},
    "files:00",
    {"sku": "int"},
    {"base": "0", "roots": ["0"], "content": {}},
    "AAAAAAAA",
    "00ff",
)


def test_settings_come_back_as_they_were(tmp_path: Path) -> None:
    paths = OutputPaths.of(str(tmp_path / "out.jsonl"))
    Path(paths.final).touch()
    with write_settings(paths, EVERYTHING, Path(paths.final).stat().st_ino):
        pass
    assert read_settings(paths) == EVERYTHING
    claim_failures(paths)
    assert (read_settings(paths), owns_failures(paths)) == (EVERYTHING, True)
    update_settings(paths, replace(EVERYTHING, weights=None))
    assert read_settings(paths) == replace(EVERYTHING, weights=None)
    claim_failures(paths, owned=False)
    assert not owns_failures(paths)


def test_the_bytes_of_an_output_say_nothing_of_where_and_when_it_was_made() -> None:
    public = replace(EVERYTHING, sources=None, questions=None, token="")
    assert parquet_settings(parquet_metadata(EVERYTHING)) == public
    assert parquet_settings(parquet_metadata(EVERYTHING, "ab")) == replace(public, token="ab")


def test_settings_of_version_0_1_are_known_by_their_format(tmp_path: Path) -> None:
    paths = OutputPaths.of(str(tmp_path / "out.jsonl"))
    Path(paths.meta).write_text('{"settings": {"model": "tiny", "num_return": 3}}')
    before = read_settings(paths)
    assert before is not None
    assert before.format == 1
    with pytest.raises(OutputError, match=r"by blip2cli 0.1, .*'blip2cli convert' reads both"):
        check_settings("out.jsonl", before, Settings({"model": "tiny"}))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"settings": 3}'])
def test_damaged_settings_are_none(data: bytes, tmp_path: Path) -> None:
    paths = OutputPaths.of(str(tmp_path / "out.jsonl"))
    assert read_settings(paths) is None
    Path(paths.meta).write_bytes(data)
    assert read_settings(paths) is None
    assert parquet_settings({METADATA_KEY: data}) is None


@pytest.mark.parametrize("value", [True, 5, 1.5, "x", [], [5], {}, {"a": 5}, None])
def test_values_of_any_other_form_are_compared_or_not_known(value: object, tmp_path: Path) -> None:
    """A file that something else wrote over ends in a sentence, whatever is in it."""
    state = {"size": 5, "sha256": "00"}
    whole = replace(
        EVERYTHING, sources={"base": "0", "roots": ["0"], "content": {"1": state, "2": state}}
    )
    paths = OutputPaths.of(str(tmp_path / "out.jsonl"))
    Path(paths.final).touch()
    with write_settings(paths, whole, Path(paths.final).stat().st_ino):
        pass
    written = json.loads(Path(paths.meta).read_text())
    for changed in _with(written, value):
        Path(paths.meta).write_text(json.dumps(changed))
        found = read_settings(paths)
        if found is None:
            continue
        list(differences(found, whole))
        identify([], "base", found.sources)
        common_settings([found, whole])
        found.adopt(whole)


def _with(stored: object, value: object) -> Iterator[object]:
    """Everything that ``stored`` is with ``value`` in one place of it."""
    yield value
    if isinstance(stored, dict):
        for key in stored:
            for changed in _with(stored[key], value):
                yield {**stored, key: changed}
    elif isinstance(stored, list):
        for number, each in enumerate(stored):
            for changed in _with(each, value):
                yield [*stored[:number], changed, *stored[number + 1 :]]


@pytest.mark.parametrize("in_place", [False, True])
def test_a_failure_leaves_the_settings_of_the_output_that_is_in_place(
    in_place: bool, tmp_path: Path
) -> None:
    paths = OutputPaths.of(str(tmp_path / "out.jsonl"))
    Path(paths.final).write_text("old")
    Path(paths.meta).write_text('{"settings": {"model": "old"}, "format": 2}')
    temporary = Path(paths.temporary())
    temporary.write_text("new")
    inode = temporary.stat().st_ino

    def replace() -> None:
        with write_settings(paths, Settings({"model": "new"}), inode):
            if in_place:
                temporary.replace(paths.final)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        replace()
    assert read_settings(paths) == Settings({"model": "new" if in_place else "old"})
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
        with write_settings(paths, Settings({"model": "new"}), inode):
            monkeypatch.setattr(os, "stat", unreachable)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        rename()
    monkeypatch.undo()
    assert read_settings(paths) == Settings({"model": "new"})
