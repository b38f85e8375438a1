"""Outputs of shares become one: the bytes of a run without shares, or a sentence why not."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from blip2cli.convert.verify import verify_all
from blip2cli.errors import OptionError, OutputError, SourceError
from blip2cli.options import EmbedOptions
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import read_settings
from blip2cli.sources.shard import shard_of
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.questions import from_file
from tests.convert.helpers import convert, read_rows
from tests.convert.shares import ASK, SHORT, Label, same_output, settings_of, shares


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_shares_of_a_folder(photos: Path, label: Label, suffix: str, count: int) -> None:
    label(("photos",), f"all{suffix}")
    pattern = shares(label, count, suffix, ("photos",))
    done = convert(pattern, f"merged{suffix}")
    assert done.rows == 12
    assert f"{os.path.realpath(f'merged{suffix}.errors')!r}" in done.notes[-1]
    same_output(f"merged{suffix}", f"all{suffix}")
    assert label(("photos",), f"merged{suffix}", output={"resume": True}).already == 14
    *single, together = verify_all([pattern])
    assert all(one.state == "sound" for one in (*single, together))
    assert str(together).startswith("sound, 12 rows; all ")
    assert len([*verify_all(["out-*"])]) == count + 1  # without the lists of failures


def test_shares_that_are_folders(photos: Path, label: Label) -> None:
    options = {"output": {"rows_per_part": 5}}
    label(("photos",), "all/", **options)
    for index in (1, 2, 3):
        label(("photos",), "out-{shard}/", f"{index}/3", **options)
    convert("out-*/", "merged/", write_as="parts")
    parts = sorted(os.listdir("all"))
    assert sorted(os.listdir("merged")) == parts
    assert len(parts) == 3
    for name in parts:
        assert Path("merged", name).read_bytes() == Path("all", name).read_bytes()
    assert Path("merged.errors").read_bytes() == Path("all.errors").read_bytes()
    assert settings_of("merged/") == settings_of("all/")
    summary = label(("photos",), "merged/", output={"rows_per_part": 5, "resume": True})
    assert (summary.already, summary.done) == (14, 0)
    for suffix in (".jsonl", ".parquet"):
        label(("photos",), f"all{suffix}")
        convert("out-*/", f"merged{suffix}")
        same_output(f"merged{suffix}", f"all{suffix}")
    assert [str(one) for one in verify_all(["out-*/"])][-1] == "sound, 12 rows; all 3 shares"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", ["manifest", "kept", "stdin", "zip", "several", "inline"])
def test_shares_of_sources_with_an_order_of_their_own(
    photos: Path, label: Label, suffix: str, kind: str
) -> None:
    names = [f"photos/{name}" for name in ("b.png", "a/1.png", "9.png", "broken.png", "10.png")]
    Path("list.txt").write_text("".join(f"{name}\n" for name in names))
    rows = [f"{name},{number}\n" for number, name in enumerate([*names, *names[1:3]])]
    Path("list.csv").write_text("file_name,note\n" + "".join(rows))
    with zipfile.ZipFile("all.zip", "w") as archive:
        for name in names:
            archive.write(name)
    sources, options = {
        "manifest": (("list.txt",), {}),
        "kept": (("list.csv",), {"keep": ("note",)}),
        "stdin": (("-",), {"stdin": Path("list.txt").read_bytes()}),
        "zip": (("all.zip",), {}),
        "several": (("photos/b.png", "photos/a"), {}),
        "inline": (("list.txt",), {"output": {"errors": "inline"}}),
    }[kind]
    label(sources, f"all{suffix}", **options)
    pattern = shares(label, 3, suffix, sources, **options)
    convert(pattern, f"merged{suffix}")
    same_output(f"merged{suffix}", f"all{suffix}")


@pytest.mark.parametrize(
    "task",
    [ASK, EmbedTask(EmbedOptions()), EmbedTask(EmbedOptions(embedding_dtype="float16"))],
    ids=["ask", "float32", "float16"],
)
def test_all_formats_become_all(photos: Path, label: Label, task: Task) -> None:
    for suffix in (".jsonl", ".parquet"):
        label(("photos",), f"all{suffix}", task=task)
    for suffix in (".jsonl.gz", ".jsonl", ".parquet"):
        pattern = shares(label, 2, suffix, ("photos",), task=task)
        for merged in (".jsonl", ".parquet"):
            convert(pattern, f"merged{merged}", overwrite=True)
            same_output(f"merged{merged}", f"all{merged}")
    convert("out-*.parquet", "merged.csv")
    assert len(Path("merged.csv").read_text().splitlines()) > 12


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_of_later_runs_find_their_places(photos: Path, label: Label, suffix: str) -> None:
    hidden = {name: photos / name for name in ("a.png", "a/1.png", "9.png")}
    for path in hidden.values():
        path.rename(path.with_suffix(".later"))
    pattern = shares(label, 2, suffix, ("photos",), task=ASK)
    for path in hidden.values():
        path.with_suffix(".later").rename(path)
    shutil.copy(photos / "b.png", photos / "broken.png")
    shares(label, 2, suffix, ("photos",), task=ASK, output={"retry_errors": True})
    convert(pattern, f"merged{suffix}")
    label(("photos",), f"all{suffix}", task=ASK)
    same_output(f"merged{suffix}", f"all{suffix}")


def test_parquet_shares_that_lost_their_hidden_files(photos: Path, label: Label) -> None:
    """As artefacts of CI do."""
    pattern = shares(label, 2, ".parquet", ("photos",))
    for path in Path().glob(".out-*"):
        path.unlink()
    convert(pattern, "merged.parquet")
    label(("photos",), "all.parquet")
    for ending in ("", ".errors"):
        merged, one = (Path(f"{name}.parquet{ending}") for name in ("merged", "all"))
        assert merged.read_bytes() == one.read_bytes()
    assert label(("photos",), "merged.parquet", output={"resume": True}).already == 14
    assert [*verify_all([pattern])][-1].state == "sound"


def test_a_share_without_images_ends_well(photos: Path, label: Label) -> None:
    (photos / "one").mkdir()
    shutil.copy(photos / "b.png", photos / "one/b.png")
    empty = next(i for i in (1, 2) if shard_of("b.png", 2) != i)
    for suffix in (".jsonl", ".parquet"):
        shares(label, 2, suffix, ("photos/one",))
        summary = label(
            ("photos/one",), f"out-{empty}-of-2{suffix}", f"{empty}/2", output={"resume": True}
        )
        assert (summary.exit_code, summary.done) == (0, 0)
        label(("photos/one",), f"all{suffix}")
        convert(f"out-*{suffix}", f"merged{suffix}")
        same_output(f"merged{suffix}", f"all{suffix}")


def test_one_share_by_itself_is_converted_as_it_is(photos: Path, label: Label) -> None:
    shares(label, 2, ".jsonl", ("photos",))
    convert("out-1-of-2.jsonl", "copy.jsonl")
    assert Path("copy.jsonl").read_bytes() == Path("out-1-of-2.jsonl").read_bytes()
    settings = read_settings(OutputPaths.of("copy.jsonl"))
    assert settings is not None
    assert settings.shard == "1/2"
    summary = label(("photos",), "copy.jsonl", "1/2", output={"resume": True})
    assert summary.already
    with pytest.raises(OutputError, match="was made with shard 1/2, not 2/2"):
        label(("photos",), "copy.jsonl", "2/2", output={"resume": True})
    with pytest.raises(OutputError, match="was made with shard 1/2, not unset"):
        label(("photos",), "copy.jsonl", output={"resume": True})


def test_a_list_of_failures_of_others_stays(photos: Path, label: Label) -> None:
    pattern = shares(label, 2, ".jsonl", ("photos",))
    Path("merged.jsonl.errors").write_text("mine")
    with pytest.raises(SourceError, match=r"merged\.jsonl\.errors'.* is there already"):
        convert(pattern, "merged.jsonl")
    assert Path("merged.jsonl.errors").read_text() == "mine"
    os.remove("merged.jsonl.errors")
    convert(pattern, "merged.jsonl")
    for path in (photos / "a/broken.png", photos / "broken.png"):
        path.unlink()
    shares(label, 2, ".jsonl", ("photos",), output={"overwrite": True})
    convert(pattern, "merged.jsonl", overwrite=True)
    assert not os.path.exists("merged.jsonl.errors")


def test_questions_about_single_images(photos: Path, label: Label) -> None:
    asked = [("b.png", "red?"), ("10.png", "big?"), ("b.png", "old?"), ("a/1.png", "wet?")]
    lines = [json.dumps({"file_name": name, "question": text}) for name, text in asked]
    Path("q.jsonl").write_text("\n".join(lines))
    task = AskTask(from_file("q.jsonl"), decode=SHORT)
    pattern = shares(label, 5, ".jsonl", ("photos",), task=task)
    convert(pattern, "merged.jsonl")
    label(("photos",), "all.jsonl", task=task)
    same_output("merged.jsonl", "all.jsonl")


def test_a_column_called_ordinal_cannot_be_carried(photos: Path, label: Label) -> None:
    Path("list.csv").write_text("file_name,ordinal\nphotos/b.png,5\n")
    with pytest.raises(OptionError, match="rows have a column ordinal of their own"):
        label(("list.csv",), "out.jsonl", "1/1", keep=("ordinal",))
    label(("list.csv",), "out.jsonl", keep=("ordinal",))
    assert [row["ordinal"] for row in read_rows(Path("out.jsonl"))] == ["5"]
    assert json.loads(Path("out.jsonl").read_text())["file_name"] == "photos/b.png"
