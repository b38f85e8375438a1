"""Images that a manifest names in several rows, told apart by a run and by the one that resumes."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterable
from itertools import chain, count, permutations
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blip2cli.convert.run import convert
from blip2cli.convert.verify import verify
from blip2cli.errors import OutputError
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    ConvertOptions,
    DecodeOptions,
    LimitOptions,
    LoaderOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.events import Summary
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.questions import from_texts

SHORT = DecodeOptions(max_new_tokens=3)
TASKS = {
    "caption": CaptionTask(decode=SHORT),
    "ask": AskTask(from_texts(["a?", "b?"]), decode=SHORT),
}


LONG = "x" * 20
STOP = LimitOptions(max_duration=1e-9)  # after the first batch


def write_manifest(folder: Path, rows: Iterable[tuple[str, object]]) -> None:
    text = "".join(f"{name},{sku}\n" for name, sku in rows)
    (folder / "m.csv").write_text("file_name,sku\n" + text)


@pytest.fixture
def label(mixed: Path, model: Blip2) -> Callable[..., Summary]:
    """Label the images of a manifest that names some of them again and again."""
    names = sorted(path.name for path in mixed.iterdir() if path.is_file())
    rows = [*names, names[0], names[0], *names[:4], names[0], "b-broken.jpg", "b-broken.jpg"]
    write_manifest(mixed, zip(rows, count(), strict=False))

    def call(
        out: Path,
        task: Task = TASKS["caption"],
        limits: LimitOptions | None = None,
        batch_size: int = 2,
        **output: object,
    ) -> Summary:
        options = RunOptions(
            source=SourceOptions((str(mixed / "m.csv"),), keep=("sku",)),
            loader=LoaderOptions(batch_size=batch_size, workers=0),
            limits=limits or LimitOptions(),
            output=OutputOptions(str(out), **output),  # type: ignore[arg-type]
        )
        return run(Job(ImageItems(), task, options, load=lambda _: model))

    return call


@pytest.mark.parametrize("errors", ["file", "inline"])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("task", TASKS)
def test_batch_by_batch_or_at_once(
    task: str, suffix: str, errors: str, label: Callable[..., Summary], tmp_path: Path
) -> None:
    whole, bit = tmp_path / f"whole.{suffix}", tmp_path / f"bit.{suffix}"
    expected = label(whole, TASKS[task], errors=errors)
    assert expected.failed
    runs = 0
    while label(bit, TASKS[task], STOP, errors=errors, resume=runs > 0).exit_code == 4:
        runs += 1
        assert runs < 50
    if suffix == "parquet":  # row groups end where runs did
        assert pq.read_table(bit).to_pylist() == pq.read_table(whole).to_pylist()
    else:
        assert bit.read_bytes() == whole.read_bytes()
    if errors == "file":
        listed = Path(f"{whole}.errors").read_bytes()
        assert Path(f"{bit}.errors").read_bytes() == listed
        assert listed.count(b"\n") == 4
    again = label(bit, TASKS[task], errors=errors, resume=True)
    assert (again.done, again.failed) == (0, 0)


def test_failed_images_are_tried_again_row_by_row(
    label: Callable[..., Summary], mixed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.jsonl"
    label(out, TASKS["caption"])
    assert label(out, TASKS["caption"], resume=True, retry_errors=True).failed == 4
    assert Path(f"{out}.errors").read_bytes().count(b"\n") == 4
    shutil.copy(mixed / "a.png", mixed / "b-broken.jpg")
    assert label(out, TASKS["caption"], resume=True, retry_errors=True).done == 4
    assert not Path(f"{out}.errors").exists()
    skus = [json.loads(line)["sku"] for line in out.read_text().splitlines()]
    assert sorted(map(int, skus)) == list(range(len(skus)))


@pytest.fixture
def orders(label: object, mixed: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Rows of images that are named three times, once with a value that is too long: in every
    order, an image an order; at last two equal rows."""
    monkeypatch.setattr("blip2cli.sources.carried_columns.MAX_VALUE", 10)
    every = [*permutations((LONG, "1", "2"))]
    names = [shutil.copy(mixed / "a.png", mixed / f"{n}.png").name for n in range(len(every))]
    rows = list(
        chain.from_iterable(zip(names, skus, strict=True) for skus in zip(*every, strict=True))
    )
    rows += [("a.png", "1")] * 2
    write_manifest(mixed, rows)
    return rows


def read(out: Path) -> list[tuple[str, str, int]]:
    """Name, value and number of every row, in order."""
    if out.suffix == ".parquet":
        rows = pq.read_table(out).to_pylist()
    else:
        data = out.read_bytes()
        data = gzip.decompress(data) if out.suffix == ".gz" else data
        rows = [json.loads(line) for line in data.splitlines()]
    return [(row["file_name"], row["sku"], row["occurrence"]) for row in rows]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet"])
def test_a_row_that_failed_is_not_taken_for_another(
    suffix: str,
    orders: list[tuple[str, str]],
    label: Callable[..., Summary],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, bit = tmp_path / f"whole.{suffix}", tmp_path / f"bit.{suffix}"
    label(whole)
    for runs in range(30):
        if label(bit, limits=STOP, batch_size=1, resume=runs > 0).exit_code != 4:
            break
    numbers = [[name for name, _ in orders[: n + 1]].count(row[0]) for n, row in enumerate(orders)]
    numbered = [(*row, number) for row, number in zip(orders, numbers, strict=True)]
    assert read(whole) == read(bit) == [row for row in numbered if row[1] != LONG]
    listed = Path(f"{whole}.errors").read_text()
    failures = [json.loads(line) for line in listed.splitlines()]
    assert [(f["file_name"], LONG, f["occurrence"]) for f in failures] == [
        row for row in numbered if row[1] == LONG
    ]
    assert Path(f"{bit}.errors").read_text() == listed
    assert label(bit, resume=True).done == label(bit, resume=True, retry_errors=True).done == 0
    assert Path(f"{bit}.errors").read_text() == listed
    monkeypatch.undo()  # now the values fit
    while label(bit, limits=STOP, batch_size=1, resume=True, retry_errors=True).exit_code == 4:
        pass
    assert sorted(read(bit)) == sorted(numbered)
    assert not Path(f"{bit}.errors").exists()
    assert [verify(str(out)).state for out in (whole, bit)] == ["sound", "sound"]


def test_what_damage_cost_is_made_again(
    orders: list[tuple[str, str]], label: Callable[..., Summary], tmp_path: Path
) -> None:
    out, saved = tmp_path / "o.jsonl", tmp_path / "s.jsonl"
    label(out)
    rows = read(out)
    lines = out.read_bytes().splitlines(keepends=True)
    lines[7] = lines[7].replace(b'"', b"!")
    out.write_bytes(b"".join(lines))
    convert(ConvertOptions((str(out),), str(saved), salvage=True))
    assert read(saved) == [*rows[:7], *rows[8:]]
    assert label(saved, resume=True).done == 1
    assert sorted(read(saved)) == sorted(rows)


def test_an_output_without_numbers_is_refused(
    label: Callable[..., Summary], tmp_path: Path
) -> None:
    out, beside = tmp_path / "o.jsonl", tmp_path / ".o.jsonl.meta.json"
    label(out)
    settings = json.loads(beside.read_text())
    assert settings["columns"].pop("occurrence") == "int"
    beside.write_text(json.dumps(settings))
    with pytest.raises(OutputError, match="was made without the column occurrence, which rows of"):
        label(out, resume=True)
