"""The real command, with a real (random) model, from a shell's point of view."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.cli.helpers import error_sentence
from tests.command import COMMAND, Run, environment

NAMES = ["a.png", "b.jpg", "c.webp", "d.png", "e/f.bmp"]


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_captions_go_to_stdout_and_everything_else_to_stderr(
    images: Path, checkpoint: Path, blip2cli: Run
) -> None:
    done = blip2cli("caption", images, "--model", checkpoint)
    assert done.returncode == 0
    got = rows(done.stdout)
    assert [row["file_name"] for row in got] == NAMES
    assert list(got[0]) == ["file_name", "width", "height", "caption", "logprob", "flag"]
    # One line in all: nothing of what the libraries like to say comes through.
    (line,) = done.stderr.splitlines()
    assert line.startswith("5 images captioned; ")


def test_captions_go_to_a_file_that_is_then_protected(
    images: Path, checkpoint: Path, called: Run, tmp_path: Path
) -> None:
    out = tmp_path / "captions.jsonl"
    arguments = ("caption", images, "--model", checkpoint, "--quiet", "-o", out)
    more = ("--num-beams", "3", "--num-captions", "2", "--max-new-tokens", "5")
    done = called(*arguments, *more, "--summary", "summary.json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    before = out.read_bytes()
    got = rows(before.decode())
    assert [len(row["candidates"]) for row in got] == [2] * 5
    assert all(row["candidates"][0]["text"] == row["caption"] for row in got)
    assert json.loads((tmp_path / "summary.json").read_text())["done"] == 5
    assert "exists already" in error_sentence(called(*arguments))
    assert out.read_bytes() == before


def test_answers_go_to_parquet(images: Path, checkpoint: Path, called: Run, tmp_path: Path) -> None:
    out = tmp_path / "answers.parquet"
    out.write_bytes(b"old")
    asked = ("-q", "what is it?", "-q", "how many?", "--max-new-tokens", "4")
    done = called("ask", images, "--model", checkpoint, *asked, "-o", out, "--overwrite")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(out)
    assert table.column_names == [
        "file_name",
        "width",
        "height",
        "question",
        "question_id",
        "answer",
        "logprob",
        "flag",
    ]
    assert table["file_name"].to_pylist() == [name for name in NAMES for _ in range(2)]
    assert table["question"].to_pylist() == ["what is it?", "how many?"] * 5


def test_questions_for_single_images(
    images: Path, checkpoint: Path, called: Run, tmp_path: Path
) -> None:
    table = tmp_path / "questions.csv"
    table.write_text("file_name,question,question_id\ne/f.bmp,what?,40\nb.jpg,how?,41\n")
    done = called("ask", images, "--model", checkpoint, "--questions", table)
    assert [(row["file_name"], row["question_id"]) for row in rows(done.stdout)] == [
        ("b.jpg", "41"),
        ("e/f.bmp", "40"),
    ]
    assert "2 images answered, 3 skipped; " in done.stderr
    table.write_text("file_name,question\nnone.jpg,what?\n")
    refused = called("ask", images, "--model", checkpoint, "--questions", table)
    assert "1 image that the source does not hold (none.jpg)" in error_sentence(refused)


def test_vectors_of_paths_on_stdin(images: Path, checkpoint: Path, blip2cli: Run) -> None:
    arguments = ("embed", "-", "-0", "--model", checkpoint, "--kind", "qformer", "--pool", "none")
    done = blip2cli(*arguments, "-o", "-", stdin="c.webp\0a.png\0", cwd=images)
    assert done.returncode == 0, done.stderr
    got = rows(done.stdout)
    assert [row["file_name"] for row in got] == ["c.webp", "a.png"]
    assert {len(row["embedding"]) for row in got} == {12 * 32}
    assert {row["kind"] for row in got} == {"qformer"}


def test_an_unreadable_image_is_noted_and_the_exit_code_tells(
    mixed: Path, checkpoint: Path, called: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    done = called("caption", mixed, "--model", checkpoint, "-o", out)
    assert done.returncode == 3
    said, where = done.stderr.splitlines()
    assert said.startswith("5 images captioned, 1 failed; ")
    assert where == "Images that failed are listed in out.jsonl.errors"
    assert [row["file_name"] for row in rows(out.read_text())] == NAMES
    (failure,) = rows((tmp_path / "out.jsonl.errors").read_text())
    assert failure["file_name"] == "b-broken.jpg"
    assert failure["error_type"] == "not_an_image"


def test_a_failure_is_a_line_on_stderr_without_a_file_even_when_quiet(
    mixed: Path, checkpoint: Path, called: Run
) -> None:
    done = called("embed", mixed, "--model", checkpoint, "-q")
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 5
    (line,) = done.stderr.splitlines()
    assert line.startswith("b-broken.jpg: not_an_image: ")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("tinny", "did you mean tiny?"),
        ("Salesforce/blip2-opt-2.7b", "HF_HUB_OFFLINE"),
        ("no such model", "neither an embedded model"),
    ],
)
def test_a_model_that_cannot_be_had(model: str, said: str, images: Path, blip2cli: Run) -> None:
    said_all = error_sentence(blip2cli("caption", images, "--model", model))
    assert said in said_all
    assert "tiny" in said_all


def test_a_dry_run_loads_nothing_and_writes_nothing(
    images: Path, called: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    more = ("--prompt", "a photo of", "--exclude", "d*", "-o", out, "--dry-run")
    done = called("caption", images, "--model", "no/where", *more)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:5] == ["caption: 4 images", "  a.png", "  b.jpg", "  c.webp", "  e/f.bmp"]
    assert "model: no/where" in lines
    assert f"output: {out}" in lines
    assert "prompt: a photo of" in lines
    assert not out.exists()


def test_a_dry_run_shows_names_that_are_not_unicode(
    images: Path, called: Run, tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    os.link(os.fsencode(images / "a.png"), os.fsencode(odd) + b"/\xff\n.png")
    done = called("caption", odd, "--dry-run")
    assert done.stdout.splitlines()[:2] == ["caption: 1 image", "  \\udcff\\n.png"]


def test_a_closed_stdin_or_stdout_is_no_error(
    images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    command = f"'{COMMAND}' embed '{images}' --model '{checkpoint}' -o out.jsonl -q <&- >&-"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=environment(tmp_path / "hf"),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(rows((tmp_path / "out.jsonl").read_text())) == 5


def test_a_reader_that_goes_away_ends_the_run_quietly(
    images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    command = f"'{COMMAND}' caption '{images}' --model '{checkpoint}' --batch-size 1 --quiet"
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout == "141\n"
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_finishes_the_batch_and_keeps_the_rows(
    number: signal.Signals, images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number_of_copy in range(400):
        (folder / f"{number_of_copy:03}.png").hardlink_to(images / "a.png")
    arguments = ("caption", folder, "--model", checkpoint, "--batch-size", "1", "-o", "out.jsonl")
    process = subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        cwd=tmp_path,
        env=environment(tmp_path / "hf"),
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests may ignore SIGINT, as a shell does for its background jobs.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    out = tmp_path / "out.jsonl"
    deadline = time.monotonic() + 200
    while not (out.exists() and out.stat().st_size):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 128 + number
    written = rows(out.read_text())  # whole lines only
    assert 0 < len(written) < 400
    assert [row["file_name"] for row in written] == [f"{n:03}.png" for n in range(len(written))]
    lines = said.splitlines()
    assert lines[0].startswith(f"{len(written)} image")
    assert lines[1] == "Interrupted; the rows that were finished are safe."
    again = shlex.split(lines[2].removeprefix("Go on with: "))
    assert again[:2] == ["blip2cli", "caption"]
    assert again[-1] == "--resume"
    assert len(lines) == 3


def test_an_unexpected_error_shows_its_traceback_only_when_asked(
    images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """A bug, planted from outside: reading the model's name fails as no one foresaw."""
    (tmp_path / "sitecustomize.py").write_text(
        "import blip2cli.model.checkpoint.resolve as r\n"
        "def resolve(*a): raise ZeroDivisionError('planted')\n"
        "r.resolve = resolve\n"
    )
    env = environment(tmp_path, PYTHONPATH=str(tmp_path))
    for more, shown in (([], False), (["-vv"], True)):
        done = subprocess.run(
            [COMMAND, "caption", images, "--model", checkpoint, *more],
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) is shown
        last = done.stderr.splitlines()[-1]
        assert last.startswith("blip2cli: Internal error: ZeroDivisionError: planted")
        assert ("-vv" in last) is not shown
