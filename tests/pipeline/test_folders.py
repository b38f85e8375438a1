"""Runs into a folder of parts: stopped, gone on with, repeated."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blip2cli.errors import OutputError
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    DecodeOptions,
    LimitOptions,
    LoaderOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline import image_items
from blip2cli.pipeline.events import Summary
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.sinks import read_output
from blip2cli.sinks.failure_list_journal import FailureJournal
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import marks
from blip2cli.sources import Listing
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.questions import from_texts
from tests.drawn_source import draw_source

SHORT = DecodeOptions(max_new_tokens=2)
CAPTION = CaptionTask(decode=SHORT)
ASK = AskTask(from_texts(["a?", "b?", "c?"]), decode=SHORT)
STOP = LimitOptions(max_duration=1e-9)  # after the first batch
Label = Callable[..., Summary]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return draw_source(tmp_path / "images", 12)  # of which 3 are broken


@pytest.fixture
def label(images: Path, model: Blip2) -> Label:
    """Label the images, in parts of 4 rows."""

    def call(
        out: Path,
        task: Task = CAPTION,
        limits: LimitOptions | None = None,
        source: Path = images,
        batch_size: int = 2,
        check_content: bool = False,
        **output: object,
    ) -> Summary:
        options = RunOptions(
            source=SourceOptions((str(source),), check_content=check_content),
            loader=LoaderOptions(batch_size=batch_size, workers=0),
            limits=limits or LimitOptions(),
            output=OutputOptions(f"{out}/", rows_per_part=4, **output),  # type: ignore[arg-type]
        )
        return run(Job(ImageItems(), task, options, load=lambda _: model))

    return call


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def names(out: Path) -> list[str]:
    return [name for path in sorted(out.iterdir()) for name in pq.read_table(path)[0].to_pylist()]


def beside(out: Path) -> set[str]:
    return {path.name for path in out.parent.iterdir()} - {"images", "list.txt"}


@pytest.mark.parametrize("errors", ["file", "inline"])
@pytest.mark.parametrize("task", [CAPTION, ASK])
def test_a_run_that_is_stopped_after_every_batch_ends_as_one_that_is_not(
    tmp_path: Path, label: Label, task: Task, errors: str
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    label(whole, task, batch_size=5, errors=errors)
    runs = 0
    while label(out, task, STOP, resume=True, errors=errors).exit_code == 4:
        runs += 1
    assert runs > 3
    assert content(out) == content(whole)
    assert [pq.read_metadata(path).num_rows for path in sorted(out.iterdir())][:-1] == [4] * (
        len(content(out)) - 1
    )
    if errors == "file":
        lists = (tmp_path / "out.errors").read_text(), (tmp_path / "whole.errors").read_text()
        assert lists[0] == lists[1]
        assert lists[0].count("\n") == 3


def test_images_that_are_tried_again_come_last(tmp_path: Path, images: Path, label: Label) -> None:
    out = tmp_path / "out"
    label(out)
    before = names(out)
    assert len(before) == 9
    draw_source(tmp_path / "repaired", 12, repaired=True)
    for path in (tmp_path / "repaired").rglob("*.png"):
        os.replace(path, images / path.relative_to(tmp_path / "repaired"))
    summary = label(out, retry_errors=True)
    assert (summary.done, summary.failed, summary.already) == (1, 2, 9)
    assert names(out)[:9] == before
    assert len(names(out)) == 10
    assert (tmp_path / "out.errors").read_text().count("\n") == 2
    assert beside(out) == {"out", ".out.meta.json", "out.errors", "repaired"}


def test_an_older_output_stays_until_a_part_of_the_new_one_is_complete(
    tmp_path: Path, label: Label
) -> None:
    out, other = tmp_path / "out", CaptionTask(decode=DecodeOptions(max_new_tokens=1))
    label(out)
    before = content(out)
    (out / "README.md").write_text("of somebody else")
    with pytest.raises(OutputError, match="exists already"):
        label(out, other)
    assert label(out, other, STOP, overwrite=True).exit_code == 4  # one row
    assert content(out) == before | {"README.md": b"of somebody else"}
    with pytest.raises(OutputError, match="was made with"):
        label(out, resume=True)
    assert label(out, other, resume=True).done == 8
    found = content(out)
    assert found.pop("README.md") == b"of somebody else"
    label(tmp_path / "fresh", other)
    assert found == content(tmp_path / "fresh")
    assert "replaces" not in marks(OutputPaths.of(f"{out}/"))


def test_a_folder_that_lost_its_settings_says_itself_how_it_was_made(
    tmp_path: Path, images: Path, label: Label
) -> None:
    out, other = tmp_path / "out", CaptionTask(decode=DecodeOptions(max_new_tokens=1))
    label(tmp_path / "whole")
    for limits in (STOP, None, None):
        label(out, CAPTION, limits, resume=True, errors="file")
        (tmp_path / ".out.meta.json").unlink()
        (tmp_path / "out.errors").unlink(missing_ok=True)
        with pytest.raises(OutputError, match="was made with"):
            label(out, other, resume=True)
    assert content(out) == content(tmp_path / "whole")


def test_the_root_of_a_file_system_is_refused(label: Label) -> None:
    with pytest.raises(OutputError, match="is the root of a file system"):
        label(Path("/proc"))


def test_a_folder_of_others_is_refused(tmp_path: Path, images: Path, label: Label) -> None:
    with pytest.raises(OutputError, match=r"files of others, such as '00\d.png'"):
        label(images / "a", overwrite=True)
    out = tmp_path / "out"
    label(out)
    (out / "part-00000.parquet").unlink()
    pq.write_table(pq.read_table(out / "part-00001.parquet").replace_schema_metadata({}),
                   out / "part-00000.parquet")  # fmt: skip
    with pytest.raises(OutputError, match=r"such as 'part-00000.parquet'"):
        label(out, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file, not a folder"):
        label(tmp_path / "file")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert label(empty).done == 9


def test_files_that_were_written_since_are_found(
    tmp_path: Path, images: Path, label: Label
) -> None:
    out = tmp_path / "out"
    label(out)
    assert label(out, resume=True, check_content=True).already == 12
    later = time.time() + 100
    os.utime(images / "a" / "001.png", (later, later))
    assert label(out, resume=True).already == 12
    with pytest.raises(OutputError, match=r"'a/001.png' has changed"):
        label(out, resume=True, check_content=True)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an entry whenever images are listed."""
    found: list[int] = []
    refs = Listing.refs

    def counted(*args: object, **more: object) -> object:
        found.append(1)
        return refs(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Listing, "refs", counted)
    return found


def test_with_the_same_list_nothing_is_listed(
    tmp_path: Path, images: Path, label: Label, listed: list[int]
) -> None:
    out, manifest = tmp_path / "out", images / "list.txt"
    paths = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    manifest.write_text("".join(f"{path}\n" for path in paths[:-1]))
    label(out, source=manifest)
    listed.clear()
    summary = label(out, source=manifest, resume=True)
    assert not listed
    assert (summary.already, summary.done, summary.exit_code) == (11, 0, 3)
    with pytest.raises(OutputError, match="was made with"):
        label(out, ASK, source=manifest, resume=True)
    changes: list[tuple[Callable[[], object], int]] = [
        (lambda: manifest.write_text(manifest.read_text() + paths[-1] + "\n"), 12),
        (lambda: manifest.write_text(manifest.read_text().replace(paths[0], paths[1])), 11),
    ]
    for change, already in changes:
        change()
        assert label(out, source=manifest, resume=True).exit_code == 3
        assert listed
        listed.clear()
        assert label(out, source=manifest, resume=True).already == already
        assert not listed


def test_changes_of_the_output_are_seen(
    tmp_path: Path, images: Path, label: Label, listed: list[int]
) -> None:
    out, manifest = tmp_path / "out", images / "list.txt"
    manifest.write_text(
        "".join(f"{path.relative_to(images)}\n" for path in sorted(images.rglob("*.png")))
    )
    label(out, source=manifest)
    errors = tmp_path / "out.errors"
    errors.write_text("".join(errors.read_text().splitlines(keepends=True)[:2]))
    listed.clear()
    assert label(out, source=manifest, resume=True).failed == 1  # tried again
    assert listed
    listed.clear()
    label(out, source=manifest, resume=True)
    assert not listed
    pq.write_table(pq.read_table(out / "part-00001.parquet").slice(1), out / "part-00001.parquet")
    with pytest.raises(OutputError, match="has 3 rows, not 4"):
        label(out, source=manifest, resume=True)


def test_a_kill_while_an_output_is_completed_leaves_no_failure_that_has_rows(
    tmp_path: Path, images: Path, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, manifest = tmp_path / "out", images / "list.txt"
    manifest.write_text("a/001.png\na/007.png\n")
    assert label(out, source=manifest).failed == 1
    repaired = draw_source(tmp_path / "repaired", 12, repaired=True)
    os.replace(repaired / "a" / "007.png", images / "a" / "007.png")

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FailureJournal, "complete", killed)
        for again in ({"retry_errors": True}, {"resume": True}):
            with pytest.raises(KeyboardInterrupt):  # its row is there, and its line is, too
                label(out, source=manifest, **again)
    for _ in range(2):
        summary = label(out, source=manifest, resume=True)
        assert (summary.already, summary.exit_code) == (2, 0)
    assert not (tmp_path / "out.errors").exists()


def test_a_list_that_changed_during_the_run_is_not_noted(
    tmp_path: Path, images: Path, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, manifest = tmp_path / "out", images / "list.txt"
    manifest.write_text("a/001.png\na/004.png\n")
    refs = Listing.refs

    def grown(self: Listing, *args: object) -> object:
        found = list(refs(self, *args))  # type: ignore[arg-type]
        manifest.write_text("a/001.png\na/004.png\na/005.png\n")
        return iter(found)

    monkeypatch.setattr(Listing, "refs", grown)
    label(out, source=manifest)
    monkeypatch.undo()
    assert label(out, source=manifest, resume=True).done == 1
    assert label(out, source=manifest, resume=True).already == 3


@pytest.fixture
def names_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an entry whenever the names of an output are read into a set."""
    found: list[int] = []

    def counted(*args: object) -> object:
        found.append(1)
        return read_output(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(image_items, "read_output", counted)
    return found


@pytest.mark.parametrize("task", [CAPTION, ASK])
def test_what_is_done_is_found_by_walking_rows_and_images_side_by_side(
    tmp_path: Path, images: Path, label: Label, task: Task, names_read: list[int]
) -> None:
    out = tmp_path / "out"
    label(out, task)
    names_read.clear()
    summary = label(out, task, resume=True)
    assert (summary.already, summary.done, summary.exit_code) == (12, 0, 3)
    assert not names_read
    # Images that are gone do no harm; new ones are labelled, and stand behind the others then.
    os.rename(images / "b" / "009.png", images / "0.png")
    assert label(out, task, resume=True).done == 1
    assert names_read
    names_read.clear()
    assert label(out, task, resume=True).already == 12
    assert names_read


def test_damage_is_found_by_who_reads_the_names(
    tmp_path: Path, label: Label, names_read: list[int]
) -> None:
    out = tmp_path / "out"
    label(out, ASK)
    table = pq.read_table(out / "part-00002.parquet")
    pq.write_table(table.take([1, 1, 1, 1]), out / "part-00002.parquet")
    names_read.clear()
    with pytest.raises(OutputError, match="has not all its rows"):
        label(out, ASK, resume=True)
    assert names_read
