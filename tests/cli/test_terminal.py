"""What a person at a terminal sees."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.cli.pseudo_terminal import on_terminal
from tests.command import COMMAND, environment


def test_a_table_and_a_progress_bar(images: Path, checkpoint: Path, tmp_path: Path) -> None:
    shown = on_terminal(
        [COMMAND, "caption", images, "--model", checkpoint, "--batch-size", "2"],
        tmp_path,
        environment(tmp_path / "hf", TERM="xterm"),
    )
    assert shown.exit_code == 0
    assert "\x1b[" in shown.raw
    lines = [line.rstrip() for line in shown.text.splitlines() if line.strip()]
    header = next(line for line in lines if line.startswith("file_name"))
    assert header.split() == ["file_name", "caption", "logprob"]
    for name in ("a.png", "b.jpg", "c.webp", "d.png", "e/f.bmp"):
        assert any(line.startswith(name) for line in lines), name
    bars = [line for line in lines if re.search(r"\d+%\|.*\| \d/5 \[", line)]
    assert bars, shown.text
    assert any("images/s" in line for line in bars)
    assert lines[-1].startswith("5 images captioned; ")
    assert all(len(line) <= 100 for line in lines)


def test_no_color_is_honoured_and_a_file_leaves_the_terminal_to_the_bar(
    mixed: Path, checkpoint: Path, tmp_path: Path
) -> None:
    shown = on_terminal(
        [COMMAND, "embed", mixed, "--model", checkpoint, "-o", "out.jsonl"],
        tmp_path,
        environment(tmp_path / "hf", TERM="xterm", NO_COLOR="1"),
    )
    assert shown.exit_code == 3
    assert "\x1b[3" not in shown.raw
    assert "file_name" not in shown.text
    assert "1 failed" in shown.text
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 5


def test_interrupting_from_the_keyboard(images: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03}.png").hardlink_to(images / "a.png")
    sent: list[int] = []

    def interrupt(pid: int, seen: str) -> None:
        if not sent and "000.png" in seen:
            sent.append(pid)
            os.killpg(pid, signal.SIGINT)  # as ^C does: to the whole group

    shown = on_terminal(
        [COMMAND, "caption", folder, "--model", checkpoint, "--batch-size", "2"],
        tmp_path,
        environment(tmp_path / "hf", TERM="xterm"),
        on_output=interrupt,
    )
    assert shown.exit_code == 130
    assert "Traceback" not in shown.text
    assert "Interrupted; the rows that were finished are safe." in shown.text
