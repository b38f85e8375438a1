"""Whole processes, from shell to exit: captions for a folder with ``tiny``, imports included.

The peers are scripts as people write them, ``scripts/docs.py`` and ``scripts/batched.py``; ours is
the command ``blip2cli caption``. All write JSON lines, which are compared text by text.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import arithmetic
from compare import DifferentError
from machine import measure
from models import build
from results import Found, Line, median_ratio
from work import Setting, draw_images

HERE = Path(__file__).resolve().parent
COMMAND = str(Path(sys.executable).with_name("blip2cli"))
DISTINCT = 1000  # pictures; files beyond are links to them: the same work, without gigabytes
TRIED_ON = 1000  # files at most that the settings of ``batched`` are tried on


@dataclass(frozen=True)
class Shell:
    """Captions for a folder of files, whole processes."""

    files: int
    rounds: int = 3
    every: int = 1  # ``docs`` captions one file in ``every``; what it takes is worked out from that
    settings: tuple[Setting, ...] = (Setting(32), Setting(64), Setting(64, 1))

    @property
    def workload(self) -> str:
        """What is done, in words."""
        return (
            f"captions, tiny, a folder of {self.files:,} JPEG files of 320x240, from shell to exit"
        )

    def fewer(self, images: int | None, rounds: int | None) -> Shell:
        """The same on fewer images and in fewer rounds, for trying it out."""
        files = min(images or self.files, self.files)
        every = min(self.every, max(1, files // 2))
        return replace(self, files=files, every=every, rounds=rounds or self.rounds)

    def race(self, name: str, models: Path) -> Found:
        """Run it. Raises DifferentError when two captions differ."""
        path = build("tiny", models)
        machine = measure(("float32",))
        with tempfile.TemporaryDirectory() as place:
            runs = _Runs(self, path, Path(place), _folder(models, self.files))
            setting, notes = runs.settle(_folder(models, min(self.files, TRIED_ON)))
            commands = runs.commands(setting)
            seconds: dict[str, list[float]] = {peer: [] for peer in commands}
            start = runs.start_up(models) if self.every > 1 else 0.0
            for _ in range(self.rounds):
                for peer, command in commands.items():
                    taken = _seconds(command)
                    if peer == "docs" and self.every > 1:
                        run = -(-self.files // self.every)
                        taken = start + (taken - start) * (self.files - 1) / (run - 1)
                    seconds[peer].append(taken)
            notes += runs.compare(commands)
            rows = runs.rows("ours")
        machine = machine.better(measure(("float32",)))
        if self.every > 1:
            notes.append(
                f"docs captions one file in {self.every} and is reckoned up to all of them, its "
                f"start of {start:.1f} s (a folder of one file) counted once"
            )
        ours = seconds["ours"]
        lines = [
            Line(
                peer,
                "float32",
                _words(peer, setting),
                self.files,
                self.files / statistics.median(taken),
                median_ratio(taken, ours),
            )
            for peer, taken in seconds.items()
        ]
        found = Found(name, self.workload, self.rounds, lines, machine)
        found.seconds = statistics.median(ours)
        parts = _parts(path, list(rows.values()))
        found.limit_seconds = arithmetic.limit(parts, machine, "float32")
        found.arithmetic = arithmetic.explain(parts, machine, "float32")
        found.notes = [*notes, "the limit counts neither imports nor the reading of images"]
        return found


@dataclass
class _Runs:
    """The commands of the peers."""

    plan: Shell
    model: Path
    place: Path
    folder: Path

    def out(self, peer: str) -> str:
        """Where a peer's rows go."""
        return str(self.place / f"{peer}.jsonl")

    def batched(self, folder: Path, setting: Setting) -> list[str]:
        """The careful user's script."""
        script, out = str(HERE / "scripts" / "batched.py"), self.out("batched")
        numbers = (str(setting.batch_size), str(setting.workers))
        return [sys.executable, script, str(folder), str(self.model), out, *numbers]

    def docs(self, folder: Path, every: int) -> list[str]:
        """The documentation's script."""
        script, out = str(HERE / "scripts" / "docs.py"), self.out("docs")
        return [sys.executable, script, str(folder), str(self.model), out, str(every)]

    def commands(self, setting: Setting) -> dict[str, list[str]]:
        """Each peer's command line."""
        options = ["--model", "tiny", "--dtype", "float32", "--quiet", "--overwrite"]
        ours = [COMMAND, "caption", str(self.folder), *options, "-o", self.out("ours")]
        return {
            "docs": self.docs(self.folder, self.plan.every),
            "batched": self.batched(self.folder, setting),
            "ours": ours,
        }

    def settle(self, folder: Path) -> tuple[Setting, list[str]]:
        """The setting that suits ``batched`` best, each tried once, and a note about it."""
        tried = {each: _seconds(self.batched(folder, each)) for each in self.plan.settings}
        count = sum(1 for _ in folder.iterdir())
        times = ", ".join(f"{_words('batched', s)}: {t:.1f} s" for s, t in tried.items())
        note = f"batched, {count:,} files, tried once each: {times}"
        return min(tried, key=tried.__getitem__), [note]

    def start_up(self, models: Path) -> float:
        """Seconds that ``docs`` takes for a single file."""
        folder = _folder(models, 1)
        return statistics.median(_seconds(self.docs(folder, 1)) for _ in range(3))

    def rows(self, peer: str) -> dict[str, str]:
        """Captions by file name."""
        lines = Path(self.out(peer)).read_text(encoding="utf-8").splitlines()
        return {row["file_name"]: row["caption"] for row in map(json.loads, lines)}

    def compare(self, peers: Sequence[str] | dict[str, Any]) -> list[str]:
        """Demand the same captions of all."""
        ours, notes = self.rows("ours"), []
        if len(ours) != self.plan.files:
            raise DifferentError(f"ours has {len(ours)} rows for {self.plan.files} files.")
        for peer in peers:
            if peer == "ours":
                continue
            theirs = self.rows(peer)
            wrong = [name for name, text in theirs.items() if ours.get(name) != text]
            if wrong:
                name = wrong[0]
                raise DifferentError(
                    f"ours differs from {peer} in {len(wrong)} of {len(theirs)} captions, first in "
                    f"{name}: {ours.get(name)!r} instead of {theirs[name]!r}."
                )
            notes.append(f"ours writes the same captions as {peer} ({len(theirs):,} compared)")
        return notes


def _folder(models: Path, files: int) -> Path:
    """A folder of exactly ``files`` files."""
    folder = models / f"folder-{files}"
    drawn = draw_images(models / "images", min(files, DISTINCT))
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        link = folder / f"{number:06d}.jpg"
        if not link.exists():
            link.hardlink_to(drawn[number % len(drawn)])
    return folder


def _seconds(command: Sequence[str]) -> float:
    """Wall-clock seconds of one run. Raises RuntimeError with what it said when it fails."""
    began = time.perf_counter()
    done = subprocess.run(
        command,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    taken = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{command[:3]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return taken


def _words(peer: str, setting: Setting) -> str:
    if peer != "batched":
        return "one by one" if peer == "docs" else "as it chooses"
    workers = f", {setting.workers} worker" if setting.workers else ""
    return f"batch {setting.batch_size}{workers}"


def _parts(path: Path, captions: list[str]) -> list[arithmetic.Part]:
    from transformers import AutoTokenizer, Blip2Config

    config, tokenizer = Blip2Config.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    ids = tokenizer(captions, add_special_tokens=False)["input_ids"]
    texts = arithmetic.Texts((1,), tuple((len(text) + 1,) for text in ids))  # and its end
    count = len(captions)
    parts = arithmetic.image_parts(config, count)
    return parts + arithmetic.text_parts(config, "float32", count, 64, texts)
