"""The list of failures of a merged output: whole, in order, and there before the output is."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blip2cli.convert.formats import parts
from blip2cli.convert.verify import verify_all
from blip2cli.errors import RunError, SourceError
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import mark
from blip2cli.storage.atomic import AtomicFile
from tests.convert.helpers import convert
from tests.convert.shares import Label, same_output, shares

KILLED = """
import os, sys
from blip2cli.convert.run import convert
from blip2cli.options import ConvertOptions
from blip2cli.storage.atomic import AtomicFile, AtomicFolder
AtomicFile.commit = AtomicFolder.commit = lambda self: os._exit(9)
convert(ConvertOptions((sys.argv[1],), sys.argv[2], write_as=sys.argv[3]))
"""


def list_of(pattern: str) -> Path:
    """The list of failures of the share that has one."""
    (path,) = Path().glob(f"{pattern}.errors")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parts"])
def test_a_killed_merge_leaves_no_output_without_its_list(
    photos: Path, label: Label, kind: str
) -> None:
    label(("photos",), "all.jsonl")
    pattern = shares(label, 2, ".jsonl", ("photos",))
    merged = "merged.jsonl" if kind == "jsonl" else "merged"
    killed = subprocess.run([sys.executable, "-c", KILLED, pattern, merged, kind], check=False)
    assert killed.returncode == 9
    assert not os.path.exists(merged)
    assert os.path.exists(f"{merged}.errors")
    convert(pattern, merged, write_as=kind)
    assert Path(f"{merged}.errors").read_bytes() == Path("all.jsonl.errors").read_bytes()
    assert str(next(verify_all([merged]))) == "sound, 12 rows; 2 failures are listed"
    if kind == "jsonl":
        same_output(merged, "all.jsonl")


def test_a_merged_folder_that_is_not_noted_as_finished_is_sound(
    photos: Path, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = shares(label, 2, ".jsonl", ("photos",))

    def fails(*args: object, **marks: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(parts, "mark", fails)
        with pytest.raises(RunError):
            convert(pattern, "merged", write_as="parts")
    found = str(next(verify_all(["merged"])))
    assert found.startswith("sound, 12 rows; unfinished: ")
    assert found.endswith("; 2 failures are listed")


def test_without_an_output_there_is_no_list(
    photos: Path, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = shares(label, 2, ".jsonl", ("photos",))

    def full(self: AtomicFile) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for before in ([], ["merged.jsonl", "merged.jsonl.errors"]):
        with monkeypatch.context() as patch:
            patch.setattr(AtomicFile, "commit", full)
            with pytest.raises(RunError):
                convert(pattern, "merged.jsonl", overwrite=True)
        assert sorted(map(str, Path().glob("merged*"))) == before
        convert(pattern, "merged.jsonl", overwrite=True)


@pytest.mark.parametrize("line", ['{"file_name": "a.png"', "{}", "[]", '{"file_name": 1}'])
def test_a_damaged_list_is_refused_before_anything_is_written(
    photos: Path, label: Label, line: str
) -> None:
    pattern = shares(label, 2, ".jsonl", ("photos",))
    with list_of("out-*.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(SourceError, match=r"Line 3 of .*\.errors' is no failure"):
        convert(pattern, "merged.jsonl")
    assert not [name for name in os.listdir() if "merged" in name]


@pytest.mark.parametrize("place", [None, "1", 1.5, [1]])
def test_places_in_the_source_are_numbers(photos: Path, label: Label, place: Any) -> None:
    Path("list.txt").write_text("photos/broken.png\nphotos/b.png\n")
    pattern = shares(label, 2, ".jsonl", ("list.txt",))
    path = list_of("out-*.jsonl")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ordinal": place}) + "\n")
    with pytest.raises(SourceError, match=r"Line 1 of .*\.errors' is no failure"):
        convert(pattern, "merged.jsonl")


def test_a_torn_line_of_an_unfinished_share_is_left_out(photos: Path, label: Label) -> None:
    pattern = shares(label, 2, ".jsonl", ("photos",))
    path = list_of("out-*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    mark(OutputPaths.of(str(path).removesuffix(".errors")), finished=None)
    convert(pattern, "merged.jsonl", allow_missing=True)
    assert Path("merged.jsonl.errors").read_bytes() == whole


def test_names_that_are_not_utf_8_stay_as_they_are(photos: Path, label: Label) -> None:
    names = [os.fsdecode(b"\xe9.png"), "z\\udc80.png", "a\\n.png", "broken.png"]
    for name in names:
        shutil.copy(photos / "broken.png", photos / "a" / name)
    Path("list.txt").write_bytes(b"".join(b"photos/a/%b\n" % os.fsencode(name) for name in names))
    label(("list.txt",), "all.jsonl")
    pattern = shares(label, 2, ".jsonl", ("list.txt",))
    convert(pattern, "merged.jsonl")
    same_output("merged.jsonl", "all.jsonl")
    assert label(("list.txt",), "merged.jsonl", output={"resume": True}).already == len(names)
    assert "4 failures are listed" in str(next(verify_all(["merged.jsonl"])))
