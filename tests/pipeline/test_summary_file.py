from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from blip2cli.errors import OutputError
from blip2cli.pipeline.events import Summary
from blip2cli.pipeline.summary_file import check_summary, write_summary
from tests.sinks.helpers import listing
from tests.storage.test_durable import plant


def summary(out: str | None, done: int = 1) -> Summary:
    return Summary("caption", "tiny", out, done, 0, 0, 0, 1, 1.0, 0.5, 2.0, 0.1, 0.8, 0.1, 0)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "runs")
    return tmp_path / "runs" / "s.json"


@pytest.mark.parametrize("out", ["a.jsonl", None])
def test_a_summary_replaces_its_predecessor(path: Path, out: str | None) -> None:
    for done in (1, 2):
        check_summary("s.json", out)
        write_summary("s.json", summary(out, done))
        assert json.loads(path.read_text())["done"] == done
    assert listing(path.parent) == {"s.json"}
    if out is not None:
        check_summary("s.json", str(path.parent / out))  # the same file by another name


@pytest.mark.parametrize("out", ["b.jsonl", "a.jsonl.gz", None])
def test_the_summary_of_another_output_stays(path: Path, out: str | None) -> None:
    write_summary(str(path), summary("a.jsonl"))
    with pytest.raises(OutputError, match="is no summary of a run with this output"):
        check_summary(str(path), out)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "notes\n",
        "[]",
        "{}",
        '{"output": "a.jsonl"}',
        '{"file_name": "a.jpg"}\n' * 2,
        "[" * 9999,
    ],
)
def test_a_file_of_others_stays(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(OutputError, match=r"s.json is there already .*; remove it"):
        check_summary("s.json", "a.jsonl")
    with pytest.raises(OutputError, match="is there already"):
        write_summary("s.json", summary("a.jsonl"))
    assert path.read_text() == content
    assert listing(path.parent) == {"s.json"}


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe"])
def test_what_is_no_file_stays(path: Path, tmp_path: Path, kind: str) -> None:
    plant(kind, path, tmp_path / "victim")
    with pytest.raises(OutputError, match="is there already"):
        check_summary("s.json", "a.jsonl")
    assert (tmp_path / "victim").read_text() == "precious"
    assert os.path.lexists(path)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/stdout"])
def test_devices_are_no_files(device: str) -> None:
    with pytest.raises(OutputError):
        check_summary(device, "a.jsonl")


def test_a_linked_predecessor_is_replaced_where_it_lies(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "kept.json")
    write_summary(str(tmp_path / "kept.json"), summary("a.jsonl", 1))
    write_summary("s.json", summary("a.jsonl", 2))
    assert path.is_symlink()
    assert json.loads((tmp_path / "kept.json").read_text())["done"] == 2
