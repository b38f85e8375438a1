"""Conversions touch nothing that is not theirs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blip2cli.convert.checkpoints.output import check_destination
from blip2cli.convert.formats import delimited
from blip2cli.errors import Blip2CliError, OutputError
from tests.convert.helpers import captions, convert, draw, read_rows, write_rows
from tests.sinks.helpers import listing
from tests.storage.test_durable import PLANTED, plant

FILES = ("r.csv", "r.tsv", "r.jsonl", "r.jsonl.gz", "r.parquet")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", captions())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("name", FILES)
def test_what_lies_at_the_output_is_left(
    rows: Path, folder: Path, tmp_path: Path, name: str, kind: str
) -> None:
    plant(kind, folder / name, tmp_path / "victim")
    with pytest.raises(OutputError):
        convert(rows, folder / name)
    assert (tmp_path / "victim").read_text() == "precious"
    assert listing(folder) == {name}


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
@pytest.mark.parametrize("name", FILES)
def test_hidden_names_that_are_taken_do_no_harm(
    rows: Path, folder: Path, tmp_path: Path, name: str, kind: str
) -> None:
    planted = {f".{name}{ending}" for ending in (".tmp", ".meta.tmp", ".old")}
    for hidden in planted:
        plant(kind, folder / hidden, tmp_path / "victim")
    convert(rows, folder / name)
    assert (tmp_path / "victim").read_text() == "precious"
    assert (folder / name).is_file()
    assert planted <= listing(folder)


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
@pytest.mark.parametrize("ending", [".meta.json", ".meta.next"])
@pytest.mark.parametrize(("name", "out"), [("r.jsonl", "r.jsonl"), ("r.keys.jsonl", "r.npy")])
def test_what_is_no_file_at_the_name_of_the_settings_is_left(
    rows: Path, folder: Path, tmp_path: Path, name: str, out: str, ending: str, kind: str
) -> None:
    plant(kind, folder / f".{name}{ending}", tmp_path / "victim")
    with pytest.raises(OutputError, match="which has the name of a file that belongs to the out"):
        convert(rows, folder / out)
    assert listing(folder) == {f".{name}{ending}"}


def test_overwrite_replaces_a_name_and_not_a_file_that_shares_it(
    rows: Path, folder: Path, tmp_path: Path
) -> None:
    plant("hard link", folder / "r.csv", tmp_path / "victim")
    convert(rows, folder / "r.csv", overwrite=True)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("name", FILES)
def test_a_link_is_followed_to_a_file_of_the_format_only(
    rows: Path, folder: Path, tmp_path: Path, name: str
) -> None:
    (folder / name).symlink_to(tmp_path / f"kept.{name[2:]}")
    with pytest.raises(OutputError, match="which is no such file; name that file itself"):
        convert(rows, folder / name)  # nothing is there
    for victim in ("victim", ".bashrc", "victim.txt"):
        (tmp_path / victim).write_text("precious")
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / victim)
        with pytest.raises(OutputError, match="which is no such file; name that file itself"):
            convert(rows, folder / name, overwrite=True)
        assert (tmp_path / victim).read_text() == "precious"
    kept = tmp_path / f"kept.{name[2:]}"
    kept.touch()
    (folder / name).unlink()
    (folder / name).symlink_to(kept)
    convert(rows, folder / name, overwrite=True)
    assert kept.stat().st_size
    assert (folder / name).is_symlink()


@pytest.mark.parametrize(
    ("source", "out", "options"),
    [
        ("rows.jsonl", "rows.jsonl", {}),
        ("rows.jsonl", "again.jsonl", {}),
        ("v.npy", "v.npy", {}),
        ("v.npy", "v.keys.jsonl", {}),
        ("photos", "photos/metadata.jsonl", {}),
        ("photos/metadata.jsonl", "photos", {"write_as": "imagefolder"}),
        ("photos", "photos", {"read_as": "imagefolder", "write_as": "imagefolder"}),
    ],
)
def test_what_is_read_is_not_written(
    rows: Path, tmp_path: Path, source: str, out: str, options: dict[str, Any]
) -> None:
    draw(tmp_path / "photos")
    (tmp_path / "photos" / "metadata.jsonl").write_bytes(rows.read_bytes())
    (tmp_path / "again.jsonl").symlink_to(rows)
    np.save(tmp_path / "v.npy", np.zeros((3, 2), "f4"))
    (tmp_path / "v.keys.jsonl").write_bytes(rows.read_bytes())
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="is what is converted"):
            convert(tmp_path / source, tmp_path / out, overwrite=overwrite, **options)
    for name in ("rows.jsonl", "v.keys.jsonl", "photos/metadata.jsonl"):
        assert read_rows(tmp_path / name) == captions()


def test_a_file_that_appears_meanwhile_is_left(
    rows: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder / "r.csv"

    def progress(done: int, total: int) -> None:
        out.write_text("of others")

    from blip2cli.convert import ConvertOptions
    from blip2cli.convert import convert as run

    with pytest.raises(Blip2CliError, match="File exists"):
        run(ConvertOptions((str(rows),), str(out)), progress)
    assert out.read_text() == "of others"
    assert listing(folder) == {"r.csv"}


def test_hidden_rows_of_an_unfinished_run_stay(rows: Path, folder: Path) -> None:
    part = folder / ".r.parquet.part-000000"
    part.write_text("rows")
    done = convert(rows, folder / "r.parquet")
    assert any("hidden rows of an unfinished run" in note for note in done.notes)
    assert part.read_text() == "rows"


def test_shards_that_others_numbered_stay(rows: Path, folder: Path, tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    convert(rows, folder / "w.tar", image_root=str(root), shard_size=1)
    others = {"w-202401.tar", "w-7.tar", "w-000004.tar", "w-first.tar"}
    for name in others:
        (folder / name).touch()
    convert(rows, folder / "w.tar", image_root=str(root), shard_size=3, overwrite=True)
    assert listing(folder) == others | {"w-000000.tar", ".w.tar.files.json"}


def test_a_shard_of_others_is_not_written_over(rows: Path, folder: Path, tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    (folder / "w-000002.tar").write_text("of others")
    with pytest.raises(OutputError, match=r"w-000002.tar' is there already, and is no shard"):
        convert(rows, folder / "w.tar", image_root=str(root), shard_size=1, overwrite=True)
    assert listing(folder) == {"w-000002.tar"}


def test_a_file_that_appears_while_the_output_is_opened_is_left(
    rows: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder / "r.csv"
    open_writer = delimited.open_writer

    def slowly(*args: Any) -> Any:
        out.write_text("of others")
        return open_writer(*args)

    monkeypatch.setattr(delimited, "open_writer", slowly)
    with pytest.raises(OutputError, match="exists already"):
        convert(rows, out)
    assert out.read_text() == "of others"
    assert listing(folder) == {"r.csv"}


def test_images_do_not_leave_a_folder_through_a_link(
    rows: Path, folder: Path, tmp_path: Path
) -> None:
    root = draw(tmp_path / "photos")
    (tmp_path / "elsewhere").mkdir()
    (folder / "farm").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="leads out of the folder by a symbolic link"):
        convert(
            rows, folder, write_as="imagefolder", image_root=str(root), images="copy",
            overwrite=True,
        )  # fmt: skip
    assert listing(tmp_path / "elsewhere") == set()


def test_sidecars_of_images_with_long_names(folder: Path, tmp_path: Path) -> None:
    name = "n" * 251 + ".jpg"
    rows = write_rows(tmp_path / "r.jsonl", [captions()[0] | {"file_name": name}])
    convert(rows, folder, write_as="sidecar")
    assert listing(folder) == {"n" * 251 + ".txt"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_what_lies_at_a_sidecar_is_not_written_through(
    rows: Path, folder: Path, tmp_path: Path, kind: str, overwrite: bool
) -> None:
    plant(kind, folder / "x 33.txt", tmp_path / "victim")
    if overwrite and kind != "folder":
        convert(rows, folder, write_as="sidecar", overwrite=True)
        assert (folder / "x 33.txt").read_text() == "ein Stück\n"
        assert not (folder / "x 33.txt").is_symlink()
    else:
        with pytest.raises(OutputError, match=r"are there already|is a folder"):
            convert(rows, folder, write_as="sidecar", overwrite=overwrite)
        assert listing(folder) == {"x 33.txt"}
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("name", ["notes.txt", "photos", "results.json", "data.bin"])
def test_a_directory_with_more_than_a_model_is_not_replaced(folder: Path, name: str) -> None:
    for file in ("config.json", "model-00001-of-00002.safetensors", "README.md", name):
        (folder / file).touch()
    with pytest.raises(OutputError, match=f"holds '{name}', which is no file of a model"):
        check_destination(str(folder), overwrite=True, folder=True)
    os.unlink(folder / name)
    check_destination(str(folder), overwrite=True, folder=True)
