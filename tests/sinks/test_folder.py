from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blip2cli.errors import RunError
from blip2cli.options import OutputOptions
from blip2cli.sinks import Column, RowSchema, Sink, read_output
from blip2cli.sinks.base import IDENTITY
from blip2cli.sinks.folder import FolderContent, FolderSink
from blip2cli.sinks.folder_layout import HiddenRows
from blip2cli.sinks.folder_store import LocalFolder
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.row_groups import UncommittedRows, arrow_schema
from blip2cli.sinks.settings_file import marks
from tests.sinks.helpers import COLUMNS, FOLDER_SETTINGS, listing, row

SCHEMA = RowSchema((*IDENTITY, *COLUMNS))
META = ".out.meta.json"
TOKEN = FOLDER_SETTINGS.token[:8]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def new(out: Path, replace: bool = False) -> Sink:
    """A sink of parts of 10 rows."""
    return FolderSink(OutputPaths.of(f"{out}/", replace), SCHEMA, FOLDER_SETTINGS)


def again(out: Path, per_image: int = 1) -> Sink:
    """A sink that goes on with the output."""
    resumed = read_output(OutputOptions(f"{out}/", resume=True), lambda name: per_image)
    assert resumed is not None
    assert resumed.rows.lacking is None
    return FolderSink(OutputPaths.of(f"{out}/"), SCHEMA, FOLDER_SETTINGS, resumed.rows)


def put(sink: Sink, first: int, last: int) -> None:
    sink.write([row(n) for n in range(first, last)])
    sink.commit()


def parts(out: Path) -> list[list[dict[str, Any]]]:
    """The rows of every visible part."""
    return [pq.read_table(path).to_pylist() for path in sorted(out.iterdir())]


def sizes(out: Path) -> list[int]:
    return [len(part) for part in parts(out)]


def hidden(out: Path) -> list[tuple[int, int]]:
    """The first row of every hidden file, and their number."""
    found = [HiddenRows.of(path.name[5:]) for path in out.parent.glob(".out.rows-*")]
    return sorted((one.start, one.count) for one in found if one is not None)


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def unbroken(folder: Path, count: int) -> dict[str, bytes]:
    sink = new(folder / "unbroken")
    sink.write([row(n) for n in range(count)])
    sink.close()
    return content(folder / "unbroken")


def test_parts_appear_complete_and_in_their_size(out: Path, tmp_path: Path) -> None:
    sink = new(out)
    put(sink, 0, 7)
    assert sizes(out) == []
    assert hidden(out) == [(0, 7)]
    put(sink, 7, 12)
    assert sizes(out) == [10]
    assert hidden(out) == [(7, 5)]  # two of its rows are in no part yet
    put(sink, 12, 43)
    assert sizes(out) == [10, 10, 10, 10]
    assert not marks(OutputPaths.of(f"{out}/")).get("finished")
    sink.close()
    assert sizes(out) == [10, 10, 10, 10, 3]
    assert [r for part in parts(out) for r in part] == [row(n) for n in range(43)]
    assert listing(tmp_path) == {"out", META}
    assert marks(OutputPaths.of(f"{out}/"))["finished"] is True


def test_a_part_is_made_as_soon_as_its_rows_are_there(out: Path) -> None:
    sink = new(out)
    for number in range(10):
        sink.write([row(number)])
    assert sizes(out) == [10]
    sink.abort()


@pytest.mark.parametrize("seed", range(12))
def test_bytes_depend_on_the_rows_alone(out: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    count = rng.choice((30, 31, 39, 45))
    expected = unbroken(tmp_path, count)
    cuts = sorted({0, count, *rng.choices(range(count), k=rng.randint(1, 6))})
    sink = new(out)
    for first, last in itertools.pairwise(cuts):
        put(sink, first, last)
        if rng.random() < 0.4:
            sink.abort()
            sink = again(out)
        elif rng.random() < 0.3:  # new images join a finished output
            sink.close()
            sink = again(out)
    sink.close()
    assert content(out) == expected
    assert listing(tmp_path) == {"out", META, "unbroken", ".unbroken.meta.json"}


@pytest.mark.parametrize("pieces", [(7, 16), (1,) * 23, (22, 1)])
def test_bytes_of_vectors_and_lists_depend_on_the_rows_alone(
    out: Path, tmp_path: Path, pieces: tuple[int, ...]
) -> None:
    columns = (Column("embedding", "embedding", 48), Column("candidates", "texts"))
    schema = RowSchema((*IDENTITY, *columns))
    arrow = arrow_schema(schema, FOLDER_SETTINGS)

    def rows(first: int, last: int) -> list[dict[str, object]]:
        texts = [[{"text": "x" * n, "logprob": -1.0}] * (n % 3) for n in range(first, last)]
        return [
            {"file_name": f"{n}.png", "width": 1, "height": 2, "embedding": [n / 7] * 48, **more}
            for n, more in zip(range(first, last), ({"candidates": t} for t in texts), strict=True)
        ]

    for folder, sizes in ((tmp_path / "unbroken", (23,)), (out, pieces)):
        paths = OutputPaths.of(f"{folder}/")
        written = FolderContent.open(paths, FOLDER_SETTINGS, arrow, resumes=False)
        written.rows_per_group = 4
        for last, size in zip(itertools.accumulate(sizes), sizes, strict=True):
            waiting = UncommittedRows(schema, arrow)
            waiting.add(rows(last - size, last))
            written.append(waiting.table())
            written.show()
        written.finish()
    groups = [pq.read_metadata(path).num_row_groups for path in sorted(out.iterdir())]
    assert groups == [3, 3, 1]
    assert content(out) == content(tmp_path / "unbroken")


def test_rows_of_one_image_may_be_in_two_parts(out: Path) -> None:
    rows = [row(n, name=f"{n // 3}.png") for n in range(12)]
    sink = new(out)
    sink.write(rows)
    sink.commit()
    assert sizes(out) == [10]
    sink.abort()
    sink = again(out, per_image=3)
    sink.write([row(n, name="4.png") for n in range(3)])
    sink.close()
    assert [r["file_name"] for part in parts(out) for r in part] == [
        f"{n // 3}.png" for n in range(15)
    ]


def test_an_output_without_rows_has_its_columns(out: Path) -> None:
    sink = new(out)
    sink.write([])
    assert sizes(out) == [0]
    sink.close()
    assert pq.read_schema(out / "part-00000.parquet").names == [c.name for c in SCHEMA.columns]
    sink = again(out)
    put(sink, 0, 12)
    assert sizes(out) == [10]
    sink.close()
    assert sizes(out) == [10, 2]


class Killed(BaseException):
    """The process ends here."""


def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Kill the run before the step with this number that changes a file of the output."""
    left = [steps]

    def counted(change: Any) -> Any:
        def step(*args: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return change(*args, **more)

        return step

    for name in ("create", "prepare"):
        monkeypatch.setattr(LocalFolder, name, counted(getattr(LocalFolder, name)))
    from blip2cli.sinks import folder
    from blip2cli.storage import durable

    monkeypatch.setattr(durable, "remove", counted(durable.remove))
    for name in ("mark", "begin_settings"):
        monkeypatch.setattr(folder, name, counted(getattr(folder, name)))


def run(out: Path, sink: Sink, first: int, last: int) -> None:
    for number in range(first, last, 6):
        put(sink, number, min(number + 6, last))
    sink.close()


def names_in(out: Path) -> list[str]:
    """The names of the rows that a run which resumes finds, in order."""
    resumed = read_output(OutputOptions(f"{out}/", resume=True), lambda name: 1)
    if resumed is None:
        return []
    assert resumed.rows.lacking is None
    return [f"{n:04d}.png" for n in range(100) if f"{n:04d}.png" in resumed.rows.done]


@pytest.mark.parametrize("start", ["new", "grown"])
def test_a_kill_at_any_step_loses_and_doubles_nothing(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    expected = unbroken(tmp_path, 24)
    before = 14 if start == "grown" else 0
    for steps in itertools.count():
        if start == "grown":
            sink = new(out, replace=True)
            run(out, sink, 0, before)
            sink = again(out)
        else:
            sink = new(out)
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            try:
                run(out, sink, before, 24)
                done = True
            except (Killed, RunError):
                done = False
        if done:
            break
        if out.exists():
            assert set(sizes(out)[:-1]) <= {10}
        there = names_in(out)
        assert there == [f"{n:04d}.png" for n in range(len(there))]
        sink = again(out) if there else new(out, replace=True)
        run(out, sink, len(there), 24)
        assert content(out) == expected
        assert listing(tmp_path) == {"out", META, "unbroken", ".unbroken.meta.json"}
        for path in out.iterdir():
            path.unlink()
        out.rmdir()
        (tmp_path / META).unlink()
    assert steps > 10
