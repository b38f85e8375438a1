"""Texts through the whole pipeline, and the command around it."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.cli.app import call
from blip2cli.errors import OptionError, OutputError, UserError
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    EmbedOptions,
    LimitOptions,
    LoaderOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.events import Event, Progress
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.pipeline.text_items import TextItems
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.embed_texts import EmbedTextsTask
from blip2cli.tasks.texts import Texts, from_lines

TEXTS = ("two cats", "a red car", "a tree and a house", "a dog", "three birds")
MANY = (*TEXTS, *(f"{text} and a {word}" for text in TEXTS for word in ("cat", "cow", "hat")))
TASK = EmbedTextsTask()
FIVE = TextItems(from_lines(TEXTS))


@pytest.fixture
def options(checkpoint: Path, tmp_path: Path) -> RunOptions:
    """Everything in float32 on the CPU, into a JSONL file."""
    return RunOptions(
        SourceOptions(()),
        ModelOptions(str(checkpoint), device="cpu", dtype="float32"),
        LoaderOptions(batch_size=1),
        OutputOptions(str(tmp_path / "texts.jsonl")),
    )


def into(options: RunOptions, out: Path, **more: Any) -> RunOptions:
    return replace(options, output=replace(options.output, out=str(out), **more))


def expected(model: Blip2, task: EmbedTextsTask = TASK) -> list[dict[str, object]]:
    return task.fit(model).rows(model, TEXTS)


def unwanted(options: ModelOptions) -> Blip2:
    raise AssertionError("the model was loaded")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_rows_are_text_and_embedding(
    suffix: str, dtype: Any, options: RunOptions, model: Blip2, tmp_path: Path
) -> None:
    out = tmp_path / f"texts{suffix}"
    task = replace(TASK, options=EmbedOptions(embedding_dtype=dtype))
    summary = run(Job(FIVE, task, into(options, out), load=lambda chosen: model))
    assert (summary.done, summary.rows, summary.exit_code, summary.unit) == (5, 5, 0, "text")
    want = expected(model, task)
    if suffix == ".parquet":
        table = pq.read_table(out)
        assert table.schema.names == ["text", "embedding", "kind"]
        number = pa.float32() if dtype == "float32" else pa.float16()
        assert table.schema.field("embedding").type == pa.list_(number, 32)
        rows = table.to_pylist()
        settings = json.loads(table.schema.metadata[b"blip2cli"])["settings"]
    else:
        import gzip

        data = out.read_bytes()
        lines = (gzip.decompress(data) if suffix == ".jsonl.gz" else data).splitlines()
        rows = [json.loads(line) for line in lines]
        settings = json.loads((tmp_path / f".texts{suffix}.meta.json").read_text())["settings"]
    assert [row["text"] for row in rows] == list(TEXTS)
    for row, other in zip(rows, want, strict=True):
        assert list(row) == ["text", "embedding", "kind"]
        # What was written reads back as the very same numbers.
        assert np.array_equal(np.array(row["embedding"], dtype), other["embedding"])  # type: ignore[arg-type]
    assert settings["kind"] == "language"
    assert settings["embedding_dtype"] == dtype
    assert settings["text"] == list(TEXTS)


def test_rows_do_not_depend_on_the_batch(options: RunOptions, model: Blip2, tmp_path: Path) -> None:
    files = []
    for size in (1, 2, 16):
        out = tmp_path / f"{size}.jsonl"
        chosen = replace(into(options, out), loader=LoaderOptions(batch_size=size))
        run(Job(TextItems(from_lines(MANY)), TASK, chosen, load=lambda chosen: model))
        files.append(out.read_bytes())
    assert files[0] == files[1] == files[2]


def test_failures_listed_for_images_before_go_when_texts_take_their_place(
    options: RunOptions, model: Blip2, mixed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "texts.jsonl"
    images = replace(options, source=SourceOptions((str(mixed),)))
    assert run(Job(ImageItems(), EmbedTask(), images, load=lambda chosen: model)).exit_code == 3
    assert (tmp_path / "texts.jsonl.errors").exists()
    with pytest.raises(OutputError, match="exists already"):
        run(Job(FIVE, TASK, options, load=unwanted))
    run(Job(FIVE, TASK, into(options, out, overwrite=True), load=lambda chosen: model))
    assert len(out.read_text().splitlines()) == 5
    assert not (tmp_path / "texts.jsonl.errors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": SourceOptions((), limit=2)}, "limit is about images"),
        ({"source": SourceOptions((), keep=("id",))}, "keep is about images"),
        ({"limits": LimitOptions(max_errors=2)}, "max_errors is about images"),
        ({"limits": LimitOptions(max_duration=9.0)}, "max_duration is about images"),
        ({"output": OutputOptions("t.jsonl", resume=True)}, "resume goes on with images"),
        ({"output": OutputOptions("t.jsonl", errors="inline")}, "errors is about images"),
        ({"loader": LoaderOptions(image_timeout=1.0)}, "image_timeout is about images"),
        ({"loader": LoaderOptions(fast_decode=True)}, "fast_decode is about images"),
        ({"output": OutputOptions("t.txt")}, "unknown suffix"),
        ({"output": OutputOptions("t.jsonl", summary="no/s.json")}, "summary"),
    ],
)
def test_what_does_not_fit_texts_is_refused_before_the_model_is_loaded(
    change: dict[str, Any], message: str, options: RunOptions
) -> None:
    with pytest.raises(UserError) as caught:
        run(Job(FIVE, TASK, replace(options, **change), load=unwanted))
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_no_text_is_refused(options: RunOptions) -> None:
    with pytest.raises(OptionError, match="give one with text"):
        run(Job(TextItems(Texts()), TASK, options, load=unwanted))


def test_a_text_that_is_too_long_is_refused_before_a_row_is_written(
    options: RunOptions, model: Blip2, tmp_path: Path
) -> None:
    items = TextItems(from_lines([*TEXTS, "cat " * 200]))
    with pytest.raises(OptionError, match="has room for 128; shorten it"):
        run(Job(items, TASK, options, load=lambda chosen: model))
    assert list(tmp_path.glob("*.jsonl")) == []


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_an_interrupted_run_keeps_what_was_finished(
    suffix: str, options: RunOptions, model: Blip2, tmp_path: Path
) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 8:
            os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / f"cut{suffix}"
    items = TextItems(from_lines(MANY))
    summary = run(Job(items, TASK, into(options, out), load=lambda chosen: model), interrupt)
    assert (summary.done, summary.exit_code) == (8, 130)
    if suffix == ".jsonl":
        assert len(out.read_text().splitlines()) == 8
    else:
        assert not out.exists()
        assert pq.read_table(tmp_path / ".cut.parquet.part-000000").num_rows == 8
    run(Job(items, TASK, into(options, out, overwrite=True), load=lambda chosen: model))
    if suffix == ".parquet":
        assert pq.read_table(out).column("text").to_pylist() == list(MANY)
        assert list(tmp_path.glob(".cut.parquet.part-*")) == []


def test_one_output_has_one_writer(options: RunOptions, tmp_path: Path) -> None:
    from blip2cli.sinks import OutputLock

    with (
        OutputLock(str(tmp_path / "texts.jsonl")),
        pytest.raises(OutputError, match=r"Another run .* is writing"),
    ):
        run(Job(FIVE, TASK, options, load=unwanted))


@pytest.fixture
def embed(checkpoint: Path, model: Blip2, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run ``blip2cli embed`` in this process, with the model of ``checkpoint``."""
    monkeypatch.setattr(Blip2, "load", classmethod(lambda cls, options, checkpoint: model))
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BLIP2CLI_")]:
        monkeypatch.delenv(name)
    return lambda *words: call(["embed", "--model", str(checkpoint), *words])


def test_the_command_embeds_texts_of_a_file(
    embed: Any, model: Blip2, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    words = ("--texts", "t.jsonl", "--normalize", "--embedding-dtype", "float16")
    assert embed(*words, "--summary", "s.json") == 0
    captured = capfd.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    task = EmbedTextsTask(
        EmbedOptions(normalize=True, embedding_dtype="float16"),
    )
    want = expected(model, task)
    assert [row["text"] for row in rows] == list(TEXTS)
    assert [row["embedding"] for row in rows] == [row["embedding"].tolist() for row in want]  # type: ignore[attr-defined]
    assert captured.err.startswith("5 texts embedded; ")
    assert json.loads((tmp_path / "s.json").read_text())["unit"] == "text"


def test_a_dry_run_lists_the_texts(embed: Any, capfd: pytest.CaptureFixture[str]) -> None:
    texts = [word for text in (*TEXTS, "a sixth") for word in ("--text", text)]
    assert embed(*texts, "--dry-run", "-o", "t.parquet") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[:7] == ["embed: 6 texts", *(f"  {text}" for text in TEXTS), "  … and 1 more"]
    assert "output: t.parquet" in lines
    assert "normalize: False" in lines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Nothing is embedded; give SOURCE, such as a folder of images, or texts"),
        (("--text", "a", "--texts", "b.txt"), "--text and --texts exclude each other"),
        (("photos", "--text", "a"), "--kind image looks at images alone; leave out SOURCE"),
        (("--text", "a", "--kind", "multimodal"), "looks at images with texts; give SOURCE"),
        (("--text", "a", "--kind", "image"), "--kind image is none of texts"),
        (("--text", "a", "--kind", "projection"), "is no retrieval model, so its texts have no"),
        (("photos", "--kind", "multimodal"), "give one with --text"),
        (("photos", "--kind", "multimodal", "--text", "a"), "no projection head"),
        (("photos", "--kind", "projection"), "no projection head"),
        (("photos", "--kind", "language"), "--kind language is none of images"),
        (("--text", "a", "-0"), "--null is about paths on stdin"),
        (("--text", "a", "--pool", "none"), "--pool none does not fit --kind language of texts"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    words: tuple[str, ...], message: str, embed: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert embed(*words) == 2
    error = capfd.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
