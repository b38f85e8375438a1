"""What an output knows of its making: what differs is refused and named, or does not matter."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from blip2cli.errors import OptionError, OutputError
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    DecodeOptions,
    Dtype,
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
from blip2cli.sinks.settings import read_settings
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.questions import from_file

SHORT = DecodeOptions(max_new_tokens=3)
CAPTION = CaptionTask(decode=SHORT)
Go = Callable[..., Summary]


@pytest.fixture
def go(model: Blip2, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Label the sources, each seen from ``tmp_path``, going on with ``out.jsonl``."""
    monkeypatch.chdir(tmp_path)

    def call(
        *sources: str,
        out: str = "out.jsonl",
        task: Task = CAPTION,
        directory: Path = checkpoint,
        dtype: Dtype = "auto",
        stdin: str = "",
        load: Callable[[ModelOptions], Blip2] = lambda options: model,
        **more: Any,
    ) -> Summary:
        return run(
            Job(
                ImageItems(),
                task,
                RunOptions(
                    SourceOptions(sources, **more),
                    ModelOptions(str(directory), dtype=dtype),
                    LoaderOptions(batch_size=2, workers=0),
                    OutputOptions(out, resume=True),
                ),
                load=load,
                stdin=io.BytesIO(stdin.encode()),
            )
        )

    return call


@pytest.fixture
def photos(images: Path, tmp_path: Path) -> Path:
    """A folder ``photos`` of five images."""
    return Path(shutil.copytree(images, tmp_path / "photos"))


def copied(photos: Path, name: str) -> Path:
    """Another folder with the same images."""
    return Path(shutil.copytree(photos, photos.parent / name))


def names(out: str = "out.jsonl") -> list[str]:
    return [json.loads(line)["file_name"] for line in Path(out).read_text().splitlines()]


def test_a_source_is_the_same_however_it_is_written(photos: Path, go: Go) -> None:
    (photos.parent / "link").symlink_to(photos)
    first = go("photos", limit=2)
    assert first.done == 2
    for text in (f"{photos}/", str(photos), "./photos/../photos", "link", "photos/*"):
        assert go(text, limit=2).already == 2
    listed = "".join(f"photos/{path.name}\n" for path in photos.iterdir())
    with pytest.raises(OutputError, match="in another place"):
        go("-", stdin=listed)  # which are named from the current folder


def test_other_images_of_the_same_names_are_refused_until_they_are_said_to_be_the_same(
    photos: Path, go: Go
) -> None:
    go("photos", limit=2)
    copied(photos, "tuesday")
    with pytest.raises(OutputError, match=r"in another place; .* confirm with moved_source"):
        go("tuesday")
    photos.rename(photos.parent / "moved")
    assert go("moved", moved_source=True).done == 3
    assert go("moved").already == 5
    with pytest.raises(OutputError, match="in another place"):
        go("tuesday")


def test_sources_that_join_must_not_rename_the_images(photos: Path, go: Go) -> None:
    copied(photos, "b")
    copied(photos, "c")
    go("photos", limit=1)
    for moved in (False, True):
        with pytest.raises(OutputError, match="would have other names"):
            go("photos", "b", moved_source=moved)
    assert go("photos", "b", out="two.jsonl", limit=6).done == 6
    with pytest.raises(OutputError, match="would have other names"):
        go("b", out="two.jsonl")
    assert go("b", "photos", out="two.jsonl").done == 4  # in another order, with the same names
    assert go("photos", "b", "c", out="two.jsonl").done == 5
    assert len(set(names("two.jsonl"))) == 15


def test_no_path_stands_in_an_output_or_beside_it(photos: Path, go: Go) -> None:
    go(str(photos))
    paths = OutputPaths.of("out.jsonl")
    settings = read_settings(paths)
    assert settings is not None
    assert settings.sources is not None
    for path in (paths.final, paths.meta):
        assert str(photos) not in Path(path).read_text()


def changed_weights(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    weights["query_tokens"] = weights["query_tokens"].flip(0) * 1.5
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


def changed_json(name: str, **values: object) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        file = directory / name
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed_weights,
        changed_json("tokenizer_config.json", model_max_length=77),
        changed_json("config.json", image_text_hidden_size=99),
        changed_json("processor_config.json", num_query_tokens=99),
    ],
)
def test_a_model_that_changed_under_its_name_is_noticed(
    photos: Path, checkpoint: Path, go: Go, change: Callable[[Path], None]
) -> None:
    directory = Path(shutil.copytree(checkpoint, photos.parent / "model"))
    go("photos", directory=directory, limit=5)
    (directory / "README.md").write_text("other words")
    moved = directory.rename(photos.parent / "renamed")
    (photos.parent / "model").symlink_to(moved)
    for same in (moved, directory):  # by content, whatever it is called
        assert go("photos", directory=same).already == 5
    change(moved)
    with pytest.raises(OutputError, match="other weights, tokenizer or configuration than"):
        go("photos", directory=directory)  # also with nothing left to do


def test_precision_is_that_of_the_output(photos: Path, model: Blip2, go: Go) -> None:
    asked = []

    def load(options: ModelOptions) -> Blip2:
        asked.append(options.dtype)
        return model

    go("photos", limit=1, load=load)
    go("photos", limit=2, load=load)
    go("photos", limit=3, dtype="bfloat16", load=load)
    assert asked == ["auto", "float32", "bfloat16"]


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_an_archive_that_changed_is_noticed(photos: Path, go: Go, suffix: str) -> None:
    archive = Path(shutil.make_archive(str(photos.parent / "a"), suffix, photos))
    for source in (archive.name, f"*.{suffix}"):
        out = f"{source[0] == '*'}.jsonl"
        go(source, out=out, limit=1)
        before = archive.read_bytes(), archive.stat()
        archive.write_bytes(before[0] + bytes(512))
        with pytest.raises(OutputError, match="an archive or a table that has changed since"):
            go(source, out=out)
        archive.write_bytes(before[0])
        os.utime(archive, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))
        assert go(source, out=out).done == 4
    with tarfile.open("b.tar", "w") as tar:
        tar.add(photos / "a.png", "other.png")
    assert go("*.tar", out="True.jsonl").done == 1 if suffix == "tar" else True


def table(*rows: dict[str, object], name: str = "t.jsonl") -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def row(name: str, **more: object) -> dict[str, object]:
    return {"file_name": f"photos/{name}", **more}


def test_a_manifest_may_grow_and_its_columns_may_not_change(photos: Path, go: Go) -> None:
    one, two = row("a.png", sku="x"), row("b.jpg", sku="y")
    table(one)
    go("t.jsonl", keep=("sku",))
    go("t.jsonl", out="plain.jsonl")
    table(one, two)
    assert go("t.jsonl", keep=("sku",)).done == 1
    table(one | {"sku": "z"}, two, row("d.png", sku="z"))
    with pytest.raises(OutputError, match="has changed since; confirm with moved_source"):
        go("t.jsonl", keep=("sku",))
    assert go("t.jsonl", keep=("sku",), moved_source=True).done == 1
    assert go("t.jsonl", keep=("sku",)).already == 3
    assert go("t.jsonl", out="plain.jsonl").done == 2  # a list of images like a folder


def test_rows_are_numbered_through_manifests_in_their_order(photos: Path, go: Go) -> None:
    def run(*sources: str, **options: object) -> int:
        return go(*sources, keep=("sku",), **options).done

    table(row("a.png", sku="1"), name="1.jsonl")
    table(row("a.png", sku="2"), row("b.jpg", sku="2"), name="2.jsonl")
    assert run("1.jsonl", "2.jsonl") == 3
    table(row("a.png", sku="3"), name="3.jsonl")
    for others in (("2.jsonl",), ("2.jsonl", "1.jsonl"), ("1.jsonl", "3.jsonl", "2.jsonl")):
        with pytest.raises(OutputError, match="made from other manifests, or in another order"):
            run(*others)
    assert run("1.jsonl", "2.jsonl", "3.jsonl") == 1
    table(row("a.png", sku="3"), row("a.png", sku="4"), name="3.jsonl")
    assert run("[1-3].jsonl") == 1
    table(row("a.png", sku="1"), row("a.png", sku="5"), name="1.jsonl")
    with pytest.raises(OutputError, match="a table that has changed since"):
        run("1.jsonl", "2.jsonl", "3.jsonl")


@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet"])
def test_carried_columns_are_widened_where_that_loses_nothing(
    photos: Path, go: Go, out: str
) -> None:
    rows = [row("a.png", n=1)]
    table(*rows)
    go("t.jsonl", out=out, keep=("n",))
    rows.append(row("b.jpg", n=2.5))
    table(*rows)
    assert go("t.jsonl", out=out, keep=("n",)).done == 1
    rows.append(row("d.png", n=3))
    table(*rows)
    assert go("t.jsonl", out=out, keep=("n",)).done == 1
    rows.append(row("c.webp", n="many"))
    table(*rows)
    if out == "out.jsonl":
        values = [json.loads(line)["n"] for line in Path(out).read_text().splitlines()]
        assert values == [1, 2.5, 3.0]
        with pytest.raises(OutputError, match="holds numbers in the column n, and now it has text"):
            go("t.jsonl", out=out, keep=("n",))
    else:
        go("t.jsonl", out=out, keep=("n",))
        assert pq.read_table(out)["n"].to_pylist() == ["1", "2.5", "3", "many"]


def asked(*rows: tuple[str, str], choices: str | None = None) -> AskTask:
    table(*({"file_name": name, "question": text} for name, text in rows), name="q.jsonl")
    return AskTask(from_file("q.jsonl"), decode=SHORT)


def test_questions_about_new_images_join_and_answered_ones_must_not_change(
    photos: Path, go: Go
) -> None:
    go("photos", task=asked(("a.png", "red?"), ("b.jpg", "blue?")), limit=1)
    # Only what is answered counts: the question about the second image was not asked yet.
    task = asked(("b.jpg", "green?"), ("a.png", "red?"), ("d.png", "big?"))
    with pytest.raises(OptionError, match=r"about 'a.png' in questions have changed"):
        go("photos", task=task)  # its number is another
    table(
        {"file_name": "b.jpg", "question": "green?", "question_id": "7"},
        {"file_name": "a.png", "question": "red?", "question_id": "1"},
        name="q.jsonl",
    )
    assert go("photos", task=AskTask(from_file("q.jsonl"), decode=SHORT)).done == 1
    Path("moved.jsonl").write_bytes(Path("q.jsonl").read_bytes())
    assert go("photos", task=AskTask(from_file("moved.jsonl"), decode=SHORT)).already == 2
    with Path("q.jsonl").open("a") as file:
        file.write('{"file_name": "a.png", "question": "tall?"}\n')
    with pytest.raises(OptionError, match=r"about 'a.png' in questions have changed"):
        go("photos", task=AskTask(from_file("q.jsonl"), decode=SHORT))


def test_images_whose_files_changed_are_noticed_where_that_is_asked_for(
    photos: Path, go: Go
) -> None:
    go("photos", limit=3)
    assert go("photos", limit=4, check_content=True).done == 1
    shutil.copy(photos / "a.png", photos / "d.png")
    assert go("photos", limit=4).already == 4
    with pytest.raises(OutputError, match=r"file of 'd.png' has changed since"):
        go("photos", check_content=True)
    os.utime("out.jsonl")
    assert go("photos", check_content=True).done == 1
