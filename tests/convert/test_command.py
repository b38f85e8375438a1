"""``blip2cli convert`` as a command: what it says, and its exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blip2cli.cli.app import call
from tests.cli.pseudo_terminal import on_terminal
from tests.command import COMMAND, environment
from tests.convert.helpers import captions, read_rows, write_rows


def convert(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = call(["convert", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert out == ""
    return code, err


def test_it_says_how_many_rows_went_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_rows(tmp_path / "c.jsonl", captions())
    code, message = convert(capsys, source, tmp_path / "c.csv")
    assert code == 0
    assert message.startswith(f"3 rows into {tmp_path / 'c.csv'}; ")
    assert convert(capsys, source, tmp_path / "d.csv", "--quiet") == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["c.jsonl"], "Only 'c.jsonl' was given; name what is converted and, last, what"),
        (["no.jsonl", "o.csv"], "There is no file or folder 'no.jsonl'; check the path."),
        (["c.jsonl", "o.parqet"], "did you mean .parquet?"),
        (["c.jsnl", "o.parquet"], "did you mean .jsonl?"),
        (["c.jsonl", "o"], "say what it shall become with --to parts or --to imagefolder"),
        (["c.jsonl", "o.json"], "add --to coco, --to vqa, --to llava or --to label-studio"),
        (["c.jsonl", "o.csv", "--to", "cocoo"], "--to cocoo is no format; did you mean coco?"),
        (["c.jsonl", "o.csv", "--from", "coco"], "this format is only written, not read"),
        (["c.jsonl", "c.jsonl"], "is what is converted"),
        (["c.jsonl", "no/o.csv"], "'no'"),
        (["c.jsonl", "s3://bucket/o.csv"], "is on another machine"),
        (["c.jsonl", "model.pth", "o.csv"], "checkpoints are converted one at a time"),
        (["model.pth", "o"], "is damaged or cut short"),
        (["model.safetensors", "o"], "name the directory it lies in"),
        (["weights", "o"], "not a BLIP-2 model"),
        (["empty", "o.csv"], "holds no metadata.jsonl"),
        (["c.jsonl", "o.csv", "--shard-size", "0"], "--shard-size"),
        (["c.jsonl", "o.csv", "--imagez", "x"], "did you mean --images"),
        (["c.jsonl", "f", "--to", "imagefolder", "--images", "lnk"], "did you mean link?"),
        (["c.jsonl", "old.csv"], "exists already; add --overwrite"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "c.jsonl", captions())
    (tmp_path / "c.jsnl").write_text("{}")
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    for name in ("model.pth", "model.safetensors"):
        (tmp_path / name).write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    code, text = convert(capsys, *arguments)
    assert code == 2
    assert text.count("\n") == 1
    assert message in text
    assert sorted(tmp_path.rglob("*")) == before


def test_options_come_from_variables_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "c.jsonl", captions())
    monkeypatch.setenv("BLIP2CLI_TO", "sidecar")
    monkeypatch.setenv("BLIP2CLI_SIDECAR_SUFFIX", ".caption")
    monkeypatch.setenv("BLIP2CLI_PREFIX", "photo of ")
    assert convert(capsys, source, tmp_path / "o")[0] == 0
    assert (tmp_path / "o" / "x 33.caption").read_text() == "photo of ein Stück\n"


def test_no_model_is_loaded(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "c.jsonl", captions())
    code = (
        "import sys; from blip2cli.cli.app import call; code = call(sys.argv[1:]); "
        "print('torch' in sys.modules, 'transformers' in sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "convert", str(source), str(tmp_path / "c.parquet")],
        env=environment(tmp_path / "hf"),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == "False False\n"


def test_a_person_sees_a_bar(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "c.jsonl", captions() * 20_000)
    shown = on_terminal(
        [COMMAND, "convert", str(source), str(tmp_path / "c.parquet")],
        tmp_path,
        environment(tmp_path / "hf", TERM="xterm"),
    )
    assert shown.exit_code == 0
    assert "B/s" in shown.text
    assert "60000 rows into" in shown.text


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interruption_leaves_the_old_output(how: signal.Signals, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "c.jsonl", captions() * 100_000)
    out = tmp_path / "c.csv"
    out.write_text("old")
    process = subprocess.Popen(
        [COMMAND, "convert", source, out, "--overwrite"],
        env=environment(tmp_path / "hf"),
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # the temporary file of the lock, for a moment
            if any(path.stat().st_size > 10_000 for path in tmp_path.glob(".c.csv.*.tmp")):
                break
        time.sleep(0.005)
    process.send_signal(how)
    _, message = process.communicate(timeout=120)
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert out.read_text() == "old"
    if how == signal.SIGINT:
        assert sorted(os.listdir(tmp_path)) == ["c.csv", "c.jsonl"]
        assert "Traceback" not in message
    short = write_rows(tmp_path / "d.jsonl", captions())
    assert call(["convert", str(short), str(out), "--overwrite", "--quiet"]) == 0
    assert call(["convert", str(out), str(tmp_path / "back.jsonl"), "--quiet"]) == 0
    assert read_rows(tmp_path / "back.jsonl") == captions()
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "c.jsonl", captions() * 1000)
    for suffix in ("jsonl.gz", "parquet", "csv"):
        done = subprocess.run(
            ["bash", "-c", f'ulimit -f 8; "{COMMAND}" convert c.jsonl o.{suffix}'],
            cwd=source.parent,
            env=environment(tmp_path / "hf"),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode == 0:  # packed into less than the limit
            continue
        assert done.returncode == 1, done.stderr
        assert "failed (File too large)" in done.stderr
        assert "Traceback" not in done.stderr
        assert sorted(os.listdir(tmp_path)) == ["c.jsonl", *sorted(tmp_path_names(tmp_path))]


def tmp_path_names(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith("o.")]
