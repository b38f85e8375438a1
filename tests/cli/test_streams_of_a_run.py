"""Rows are written whatever happens to the streams that a run only speaks to."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from blip2cli.cli.app import call
from tests.cli.helpers import error_sentence
from tests.command import COMMAND, environment


def shell(line: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    env = environment(folder / "hf", **more)
    return subprocess.run(
        ["/bin/sh", "-c", line], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("how", ["<&- >&- 2>&-", "-v 2>/dev/full", "--log-json 2>/dev/full"])
def test_a_run_needs_nobody_to_speak_to(
    mixed: Path, checkpoint: Path, tmp_path: Path, how: str
) -> None:
    arguments = f"caption {mixed} --model {checkpoint} --workers 1 -o out.jsonl {how}"
    done = shell(f"{COMMAND} {arguments}", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(rows) == 5


def test_rows_need_a_place(tmp_path: Path) -> None:
    done = shell(f"{COMMAND} caption . --model tiny >&-", tmp_path)
    assert error_sentence(done) == (
        "There is no place for the rows: stdout is closed; give --output a file."
    )


@pytest.mark.parametrize("arguments", ["--help", "caption . --model tiny --dry-run"])
def test_a_full_stdout_is_said_in_one_sentence(
    images: Path, tmp_path: Path, arguments: str
) -> None:
    (tmp_path / "a.png").hardlink_to(images / "a.png")
    done = shell(f"{COMMAND} {arguments} >/dev/full", tmp_path)
    assert error_sentence(done, 1).startswith("Writing 'stdout' failed (No space left")


def test_a_deleted_folder_has_one_sentence(tmp_path: Path) -> None:
    done = shell(f"mkdir gone; cd gone; rmdir ../gone; exec {COMMAND} caption /tmp", tmp_path)
    assert "was deleted" in error_sentence(done)


def test_names_of_others_steer_no_terminal(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = "evil\x1b]52;c;cm0=\x07\x9b2J\u202e\u2028.jpg"
    (tmp_path / odd).write_text("no picture")
    (tmp_path / "forged\nblip2cli: all is well.\n.png").write_text("no picture")
    (tmp_path / "a.png").hardlink_to(images / "a.png")
    monkeypatch.chdir(tmp_path)
    for arguments in (
        "caption . --model tiny -v",
        "caption . --model tiny --log-json",
        "caption . --model tiny --dry-run",
        "caption \x1b[2J --model tiny",
        "caption . --model \x1b[2J",
        "caption . --prompt \x9b2J --dry-run",
        "caption . --\x1b[2J",
        "\x1b[2J",
    ):
        words = arguments.split(" ")
        call(words)
        printed, said = capfd.readouterr()
        if "--dry-run" in words:
            said += printed
        assert said
        assert all(c.isprintable() or c == "\n" for c in said), (words, said)
        assert "\nblip2cli: all is well" not in said
