"""Outputs of shares become one: the bytes of a run without shares, or a sentence why not."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blip2cli.convert import merge as merging
from blip2cli.convert.verify import verify_all
from blip2cli.errors import OptionError, OutputError, SourceError
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    DecodeOptions,
    EmbedOptions,
    LoaderOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.events import Summary
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import parquet_settings, read_settings
from blip2cli.sources.shard import shard_of
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.questions import from_file, from_texts
from tests.convert.helpers import convert, read_rows

SHORT = DecodeOptions(max_new_tokens=3)
CAPTION = CaptionTask(decode=SHORT)
ASK = AskTask(from_texts(["red?", "how many?"]), decode=SHORT)
Label = Callable[..., Summary]


@pytest.fixture
def label(model: Blip2, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Label:
    """Label sources, as seen from ``tmp_path``, into ``out``, as one share or all of them."""
    monkeypatch.chdir(tmp_path)

    def call(
        sources: tuple[str, ...],
        out: str,
        shard: str | None = None,
        task: Task = CAPTION,
        stdin: bytes = b"",
        output: dict[str, Any] = {},  # noqa: B006 - not changed
        **more: Any,
    ) -> Summary:
        options = RunOptions(
            SourceOptions(sources, shard=shard, **more),
            ModelOptions(str(checkpoint)),
            LoaderOptions(batch_size=3, workers=0),
            OutputOptions(out, **output),
        )
        job = Job(ImageItems(), task, options, stdin=io.BytesIO(stdin), load=lambda _: model)
        return run(job)

    return call


@pytest.fixture
def photos(images: Path, tmp_path: Path) -> Path:
    """A folder of 14 files, of which two are no images, with names that are easily misordered."""
    folder = tmp_path / "photos"
    pictures = sorted(images.glob("*.png"))
    names = ["a/1.png", "a-b/1.png", "a.png", "a/b/2.png", "ü.png", "z\\udc80.png", "10.png"]
    names += ["9.png", "B.png", "b.png", os.fsdecode(b"caf\xe9.png"), 'quo"te.png']
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures[number % len(pictures)], folder / name)
    (folder / "a/broken.png").write_bytes(b"no picture")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def shares(label: Label, count: int, suffix: str, *args: Any, **options: Any) -> str:
    """Label all shares; returns the pattern of their outputs."""
    for index in range(1, count + 1):
        label(args[0], f"out-{{shard}}{suffix}", f"{index}/{count}", **options)
    return f"out-*{suffix}"


def settings_of(path: str) -> Any:
    """What an output knows of its making, beside what is its own alone."""
    beside = read_settings(OutputPaths.of(path))
    assert beside is not None
    own = parquet_settings(pq.read_schema(path).metadata) if path.endswith(".parquet") else None
    return {**vars(beside), "token": ""}, own


def same_output(out: str, other: str) -> None:
    """Two outputs are the same bytes, with the same failures and settings beside them."""
    assert Path(out).read_bytes() == Path(other).read_bytes()
    lists = [Path(f"{path}.errors") for path in (out, other)]
    assert len({one.read_bytes() if one.exists() else None for one in lists}) == 1
    assert settings_of(out) == settings_of(other)


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
def test_rows_of_later_runs_find_their_places(
    photos: Path, label: Label, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_RUN_BYTES", 1)  # a run of each batch
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


def test_what_is_missing_doubled_or_other_is_refused(photos: Path, label: Label) -> None:
    pattern = shares(label, 8, ".jsonl", ("photos",))
    os.rename("out-3-of-8.jsonl", "moved.jsonl")
    with pytest.raises(SourceError, match="not complete: share 3 of 8 is missing"):
        convert(pattern, "merged.jsonl")
    os.remove("out-5-of-8.jsonl")
    with pytest.raises(SourceError, match=r"shares 3, 5 of 8 are missing.* allow_missing"):
        convert(pattern, "merged.jsonl")
    *_, together = verify_all([pattern])
    assert (together.exit_code, str(together)[:47]) == (
        1, "not complete: shares 3, 5 of 8 are missing",
    )  # fmt: skip
    done = convert(pattern, "merged.jsonl", allow_missing=True)
    assert "The output is not complete: shares 3, 5 of 8 are missing." in done.notes
    summary = label(("photos",), "merged.jsonl", output={"resume": True})  # the rest, as one run
    assert summary.already + summary.done + summary.failed == 14
    assert not os.path.exists("moved.jsonl.errors")


def test_doubled_shares_are_refused(photos: Path, label: Label) -> None:
    pattern = shares(label, 2, ".parquet", ("photos",))
    shutil.copy("out-1-of-2.parquet", "out-copy.parquet")
    with pytest.raises(SourceError, match="are both share 1/2; leave one out"):
        convert(pattern, "merged.parquet")
    assert "are both share 1/2" in str([*verify_all([pattern])][-1])
    label(("photos",), "other.parquet")
    with pytest.raises(SourceError, match=r"other\.parquet' is no share"):
        convert("out-1-of-2.parquet", "out-2-of-2.parquet", "other.parquet", "merged.parquet")
    assert not os.path.exists("merged.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": CaptionTask(decode=DecodeOptions(max_new_tokens=4))}, "max_new_tokens 4, not 3"),
        ({"task": ASK}, "with the command ask, not caption"),
        ({"output": {"errors": "inline"}}, "errors inline, not file"),
        ({"shard": "2/3"}, "is share 1/2, and .* is share 2/3"),
        ({"sources": ("other",)}, "from images in another place.* moved_source"),
        ({"sources": ("list.txt",)}, "with the column ordinal"),
        ({"limit": 4}, "with limit 4, not unset"),
        ({"exclude": ("a/*", "b*")}, r"with exclude 'a/\*', 'b\*', not unset"),
    ],
)
def test_shares_of_different_settings_are_refused(
    photos: Path, label: Label, change: dict[str, Any], message: str
) -> None:
    shutil.copytree(photos, "other")
    (photos / "list.txt").write_text("b.png\na.png\n")
    os.link(photos / "list.txt", "list.txt")
    if change.get("sources") == ("list.txt",):
        change = {"sources": ("photos/list.txt",)}
    label(("photos",), "out-1.jsonl", "1/2")
    label(**{"sources": ("photos",), "out": "out-2.jsonl", "shard": "2/2"} | change)
    with pytest.raises(SourceError, match=message):
        convert("out-*.jsonl", "merged.jsonl")
    assert "not of one output" in str([*verify_all(["out-1.jsonl", "out-2.jsonl"])][-1])
    if change.get("sources") == ("other",):
        label(("photos",), "all.jsonl")
        convert("out-*.jsonl", "merged.jsonl", moved_source=True)
        assert Path("merged.jsonl").read_bytes() == Path("all.jsonl").read_bytes()


@pytest.mark.parametrize("shard", ["x/y", "0/2", "3/2", "1/2/3", ""])
def test_damaged_numbers_of_shares_are_no_shares(photos: Path, label: Label, shard: str) -> None:
    shares(label, 2, ".jsonl", ("photos",))
    meta = Path(".out-1-of-2.jsonl.meta.json")
    meta.write_text(meta.read_text().replace('"1/2"', f'"{shard}"'))
    with pytest.raises(SourceError, match=r"'out-1-of-2\.jsonl' is no share, or has lost"):
        convert("out-*.jsonl", "merged.jsonl")
    *_, together = verify_all(["out-*.jsonl"])
    assert str(together) == "not complete: share 1 of 2 is missing"


def test_how_many_shares_are_missing_is_said_in_short(photos: Path, label: Label) -> None:
    label(("photos",), "out.jsonl", "2/100000000")
    with pytest.raises(SourceError, match=r"shares 1, 3, .*, 11 and 99999989 more of 10{8} are"):
        convert("out*.jsonl", "merged.jsonl")


def test_shares_of_other_sources_are_refused(photos: Path, label: Label) -> None:
    for name in ("1", "2", "3"):
        shutil.make_archive(name, "tar", photos)
    tars = ("1.tar", "2.tar")
    label(tars, "out-1.jsonl", "1/2")
    for others in (tars[::-1], (*tars, "3.tar")):
        label(others, "out-2.jsonl", "2/2", output={"overwrite": True})
        with pytest.raises(SourceError, match="from other sources, or from the same ones in ano"):
            convert("out-*.jsonl", "merged.jsonl")
    label((*tars, "3.tar"), "out-1.jsonl", "1/2", output={"resume": True})
    assert convert("out-*.jsonl", "merged.jsonl").rows == 36


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_unfinished_shares_are_refused(photos: Path, label: Label, suffix: str) -> None:
    pattern = shares(label, 2, suffix, ("photos",))
    late = f"out-2-of-2{suffix}"
    os.remove(late)
    label(("photos",), late, "2/2", output={"overwrite": True})
    convert(pattern, f"merged{suffix}")
    # A run that adds rows is unfinished until it ends.
    added = next(f"{n}.png" for n in range(99) if shard_of(f"{n}.png", 2) == 2)
    shutil.copy(photos / "b.png", photos / added)
    with pytest.raises(ZeroDivisionError):
        label(("photos",), late, "2/2", task=Failing(), output={"resume": True})
    with pytest.raises(SourceError, match=f"{late}', share 2/2, is unfinished.*resume"):
        convert(pattern, f"merged{suffix}", overwrite=True)
    *_, together = verify_all([pattern])
    assert f"'{late}', share 2/2, is unfinished" in str(together)
    label(("photos",), late, "2/2", output={"resume": True})
    convert(pattern, f"merged{suffix}", overwrite=True)
    label(("photos",), f"all{suffix}")
    assert Path(f"merged{suffix}").read_bytes() == Path(f"all{suffix}").read_bytes()


class Failing(CaptionTask):
    """A task that comes to rows, and no further."""

    def __init__(self) -> None:
        super().__init__(decode=SHORT)

    def rows(self, *args: Any) -> Any:
        raise ZeroDivisionError


def test_a_share_that_was_never_merged_is_unfinished_not_missing(
    photos: Path, label: Label
) -> None:
    pattern = shares(label, 2, ".parquet", ("photos",))
    paths = OutputPaths.of("out-2-of-2.parquet")
    os.rename(paths.final, paths.part(0))
    with pytest.raises(SourceError, match=r"'out-2-of-2\.parquet', share 2/2, is unfinished"):
        convert(pattern, "merged.parquet")
    done = convert(pattern, "merged.parquet", allow_missing=True)
    assert 0 < done.rows < 12
    *_, single, together = verify_all([pattern])
    assert "unfinished, in 1 parts" in str(single)
    assert "share 2/2, is unfinished" in str(together)


def test_an_image_in_another_share_is_damage(photos: Path, label: Label) -> None:
    shares(label, 2, ".jsonl", ("photos",))
    with Path("out-1-of-2.jsonl").open("ab") as file:
        file.write(Path("out-2-of-2.jsonl").read_bytes().splitlines(keepends=True)[0])
    first, *_ = verify_all(["out-1-of-2.jsonl"])
    assert first.state == "damaged"
    assert "images of other shares are in it" in str(first)


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
