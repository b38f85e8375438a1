from __future__ import annotations

import os
from pathlib import Path

import pytest

from blip2cli.errors import OutputError
from blip2cli.options import OutputOptions
from blip2cli.sinks import check_output
from blip2cli.sinks.lock import OutputLock
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import claim_failures
from tests.sinks.helpers import FORMATS, listing, open_out, put, read, row
from tests.storage.test_durable import plant


def refusal(out: object, **options: bool) -> str:
    with pytest.raises(OutputError) as caught:
        check_output(OutputOptions(str(out), **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [*FORMATS, "JSONL", "Parquet"])
def test_a_new_file_is_fine_and_nothing_is_left_behind(tmp_path: Path, suffix: str) -> None:
    check_output(OutputOptions(str(tmp_path / f"out.{suffix}")))
    assert listing(tmp_path) == set()


def test_stdout_needs_nothing() -> None:
    check_output(OutputOptions(None))
    check_output(OutputOptions("-"))


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_exists_is_not_touched_without_overwrite(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    out.write_text("mine")
    assert "add resume to go on with it, overwrite to replace it" in refusal(out)
    check_output(OutputOptions(str(out), overwrite=True))
    assert out.read_text() == "mine"


def test_rows_of_an_unfinished_run_are_not_thrown_away_silently(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    Path(OutputPaths.of(str(out)).part(0)).touch()
    assert "unfinished run" in refusal(out)
    check_output(OutputOptions(str(out), overwrite=True))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("out.json", "did you mean .jsonl?"),
        ("out.ndjson.gz", "did you mean .jsonl.gz?"),
        ("out.json.gz", "did you mean .jsonl.gz?"),
        ("out.pq", "did you mean .parquet?"),
        ("out.paruqet", "did you mean .parquet?"),
        ("out.jsnl", "did you mean .jsonl?"),
        ("out.tar.xz", "unknown suffix '.xz'"),
        ("out", "no suffix"),
        (".jsonl", "no suffix"),
        ("", "no suffix"),
    ],
)
def test_unknown_suffixes(tmp_path: Path, name: str, hint: str) -> None:
    message = refusal(f"{tmp_path}/sub.d/{name}" if name else "")
    assert hint in message
    assert all(f".{suffix}" in message for suffix in FORMATS)


def test_folders(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "x.jsonl").mkdir()
    assert "is a folder" in refusal(tmp_path / "x.jsonl")
    assert "does not exist" in refusal(tmp_path / "absent" / "x.jsonl")
    (tmp_path / "file").touch()
    assert "does not exist" in refusal(tmp_path / "file" / "x.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "not a regular file" in refusal(tmp_path / "pipe.jsonl", overwrite=True)


def test_a_list_of_failures_without_its_output_is_not_touched_without_overwrite(
    tmp_path: Path,
) -> None:
    (tmp_path / "x.jsonl.errors").touch()
    assert "it is no list of this output" in refusal(tmp_path / "x.jsonl")
    assert "it is no list of this output" in refusal(tmp_path / "x.jsonl", overwrite=True)
    claim_failures(OutputPaths.of(str(tmp_path / "x.jsonl")))
    assert "without its output; move it away, add overwrite" in refusal(tmp_path / "x.jsonl")
    check_output(OutputOptions(str(tmp_path / "x.jsonl"), resume=True))  # of a run without rows
    put(open_out(tmp_path / "x.jsonl", overwrite=True), row(0))
    (tmp_path / "x.jsonl").rename(tmp_path / "monday.jsonl")
    assert "without its output" in refusal(tmp_path / "x.jsonl", resume=True)
    check_output(OutputOptions(str(tmp_path / "x.jsonl"), overwrite=True))
    check_output(OutputOptions(str(tmp_path / "x.jsonl"), errors="inline"))


def test_companions(tmp_path: Path) -> None:
    paths = OutputPaths.of(f"{tmp_path}/metadata.jsonl.gz")
    folder = str(paths.folder)
    assert paths.errors == f"{folder}/metadata.jsonl.gz.errors"
    assert paths.old_errors == f"{folder}/metadata.errors.jsonl"
    assert paths.meta == f"{folder}/.metadata.jsonl.gz.meta.json"
    assert paths.part(7) == f"{folder}/.metadata.jsonl.gz.part-000007"
    for number in (10, 2, 1_000_000):
        Path(paths.part(number)).touch()
    (tmp_path / ".metadata.jsonl.gz.part-x").touch()
    leftover = [paths.part(2), paths.part(10), paths.part(1_000_000)]
    assert paths.parts() == leftover  # the first part is missing
    Path(paths.final).touch()
    assert (paths.parts(), paths.every_part()) == ([], leftover)  # removed after a merge
    Path(paths.part(0)).touch()
    assert paths.parts() == [paths.part(0), *leftover]


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
@pytest.mark.parametrize(
    ("out", "name"),
    [
        ("out.jsonl", ".out.jsonl.meta.json"),
        ("out.jsonl.gz", ".out.jsonl.gz.meta.next"),
        ("out.jsonl", "out.jsonl.errors"),
        ("out.parquet", ".out.parquet.part-000000"),
        ("out.parquet", ".out.parquet.part-000007"),
    ],
)
def test_what_is_no_file_beside_the_output_is_left(
    tmp_path: Path, kind: str, out: str, name: str
) -> None:
    plant(kind, tmp_path / name, tmp_path / "victim")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        problem = refusal(tmp_path / out, **options)
        assert f"{name}', which has the name of a file that belongs to the output" in problem
    assert os.path.lexists(tmp_path / name)
    assert (tmp_path / "victim").read_text() == "precious"


def test_overwriting_removes_no_file_of_others_with_the_name_of_a_part(tmp_path: Path) -> None:
    (tmp_path / ".out.parquet.part-000003").write_text("notes")
    assert "part-000003', which has" in refusal(tmp_path / "out.parquet", overwrite=True)


@pytest.mark.parametrize("suffix", FORMATS)
def test_names_may_be_as_long_as_those_beside_them_allow(tmp_path: Path, suffix: str) -> None:
    name = "n" * (242 - len(suffix) - 1) + "." + suffix
    assert "choose one of at most 242 bytes" in refusal(tmp_path / ("n" + name))
    assert "choose one of at most 242 bytes" in refusal(tmp_path / ("ü" * 121 + ".jsonl"))
    sink = open_out(tmp_path / name)
    put(sink, row(0))
    sink.abort()
    with OutputLock(str(tmp_path / name)):
        pass
    sink = open_out(tmp_path / name, overwrite=True)
    sink.write([row(0)])
    sink.close()
    assert read(tmp_path / name) == [row(0)]


@pytest.mark.parametrize("content", ["", "notes", "[]", "{}"])
def test_a_file_of_others_with_the_name_of_the_settings_is_left(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / ".out.jsonl.meta.json").write_text(content)
    assert "meta.json', which has the name of a file that belongs to the output, holds no" in (
        refusal(tmp_path / "out.jsonl")
    )


@pytest.mark.parametrize("target", ["nothing.jsonl", "victim", "victim.parquet", ".bashrc"])
def test_a_link_that_leads_to_no_output_is_refused(tmp_path: Path, target: str) -> None:
    if target != "nothing.jsonl":
        (tmp_path / target).write_text("precious")
    (tmp_path / "out.jsonl").symlink_to(target)
    for options in ({}, {"overwrite": True}, {"resume": True}):
        assert "which is no such file; name that file" in refusal(tmp_path / "out.jsonl", **options)


def test_a_linked_output_is_written_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out.jsonl").symlink_to("real/data.jsonl")
    assert OutputPaths.of(str(tmp_path / "out.jsonl")).folder == str(tmp_path / "real")
