"""Every command as a process of its own, struck by signals at random instants and resumed.

``python -m tests.torture.commands --trials 100 --seed 7``; ``--only NAME/NUMBER`` repeats one.
``caption``, ``ask`` and ``embed`` run with worker processes, from folders, archives and manifests,
with the times between two fsyncs that users have. The signal goes to the whole process group (as
from a terminal or a batch system) or to the parent (as from the kernel out of memory). In between,
what the rows were made of may be edited: a resumed run has to refuse that, and to change nothing.
``convert`` has no resume; its destination is absent or whole, and a second run makes it whole.

In the end the files are those of a run that was not disturbed, nothing has printed a traceback,
no process is left, and nothing of ours lies in ``/dev/shm`` or the folder for temporary files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blip2cli.model.checkpoint.embedded import embedded_path
from blip2cli.sources.carried_columns import MAX_VALUE
from tests.drawn_source import draw_source
from tests.fork_server import Child, Completed, start_process
from tests.torture.kills import wait_somewhere
from tests.torture.leftovers import check_session_gone, unmapped
from tests.torture.report import Report
from tests.workload import GOOD_CODES, Violation, contents, readable

IMAGES = 40
DEEPEST = 3  # strikes before the last resume
# A line of a traceback that names a module of ours: the interpreter, which an interrupt may meet
# before it comes to us, prints tracebacks of its own.
_OURS = re.compile(r'File "[^"]*/blip2cli/[^"]*\.py"')
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Struck:
    """A command, its output's name, and a file it depends on that somebody edits."""

    name: str
    arguments: tuple[str, ...]
    output: str
    edited: Path | None = None

    @property
    def is_conversion(self) -> bool:
        """Whether it begins again in place of going on."""
        return self.arguments[0] == "convert"

    def line(self, folder: Path, *flags: str) -> list[str]:
        """The whole command line, with the output in ``folder``."""
        out = f"{folder}/{self.output}"
        return [*self.arguments, *([out] if self.is_conversion else ["-o", out]), *flags]


def build(root: Path) -> Iterator[Struck]:
    """Draw the sources below ``root`` and yield the commands; conversions need ``rows`` there."""
    source = draw_source(root / "source", IMAGES)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    names = [path.relative_to(source).as_posix() for path in files]
    with zipfile.ZipFile(root / "images.zip", "w") as packed:
        for path, name in zip(files, names, strict=True):
            packed.write(path, name)
    with tarfile.open(root / "images.tar", "w") as tar:
        for path, name in zip(files, names, strict=True):
            tar.add(path, name)
    manifest = source / "list.jsonl"
    rows: list[tuple[str, object]] = [(name, n / 4) for n, name in enumerate(names)]
    # Several rows about one image, of which the first one fails.
    rows = [(names[0], "x" * (MAX_VALUE + 1)), *rows, *rows[:8]]
    lines = [json.dumps({"file_name": name, "weight": weight}) for name, weight in rows]
    manifest.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    questions = root / "questions.txt"
    questions.write_text("how many cats?\nis there a dog?\n", encoding="utf-8")
    model = shutil.copytree(embedded_path("tiny"), root / "model")
    weights = max(model.glob("*.safetensors"), key=lambda path: path.stat().st_size)

    tiny = ("--model", "tiny", "--quiet")
    here = ("--model", str(model), "--quiet")
    ask = ("--questions", str(questions), "--max-new-tokens", "4")
    folder, table = str(source), str(manifest)
    archive, packed_archive = str(root / "images.tar"), str(root / "images.zip")
    yield Struck("caption", ("caption", folder, *here, "--workers", "2"), "out.jsonl", weights)
    yield Struck(
        "ask-tar", ("ask", archive, *tiny, *ask, "--workers", "1"), "out.jsonl.gz", questions
    )
    yield Struck(
        "ask-manifest",
        ("ask", table, *tiny, *ask, "--keep", "weight", "--workers", "2"),
        "out.parquet",
        questions,
    )
    yield Struck(
        "ask-folder", ("ask", folder, *tiny, *ask, "--rows-per-part", "7"), "out/", questions
    )
    yield Struck("embed", ("embed", packed_archive, *tiny, "--workers", "2"), "out.parquet")
    yield Struck(
        "inline", ("ask", folder, *tiny, *ask, "--errors", "inline"), "out.jsonl", questions
    )
    rows = str(root / "rows" / "out.jsonl")
    for kind in ("parquet", "csv", "tsv"):
        yield Struck(f"convert-{kind}", ("convert", rows), f"out.{kind}")


def visible(folder: Path) -> dict[str, bytes]:
    """Files that other programs see, compressed ones unpacked."""
    files = contents(folder).items()
    return {name: readable(name, data) for name, data in files if not name.startswith(".")}


@dataclass(frozen=True)
class Trials:
    """Trials of one command."""

    command: Struck
    root: Path
    right: dict[str, bytes]  # what a run that is not disturbed leaves
    seconds: float  # how long that takes

    @classmethod
    def build(cls, command: Struck, root: Path) -> Trials:
        """Run the command once without a strike."""
        folder = root / ("rows" if command.name == "caption" else f"whole-{command.name}")
        folder.mkdir()
        began = time.monotonic()
        ended = _start(command.line(folder), root).wait()
        if ended.code not in GOOD_CODES:
            raise Violation(f"the unbroken run of {command.name} ended with {ended}")
        return cls(command, root, visible(folder), time.monotonic() - began)

    def trial(self, seed: int, number: int) -> int:
        """Strike, perhaps several times, and finish; returns how many strikes hit a run.

        Raises ``Violation`` (or ``TimeoutError``); the folder ``trial`` stays then.
        """
        rng = random.Random(f"{seed}/{self.command.name}/{number}")
        folder = self.root / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shared = set(os.listdir("/dev/shm"))
        hits = 0
        for _ in range(rng.randint(1, DEEPEST)):
            ended = self._strike(folder, rng)
            hits += ended.code not in GOOD_CODES
            self._check_between(folder)
            if ended.code in GOOD_CODES:
                break
        if self.command.edited is not None and rng.random() < 0.5:
            self._edit(folder, self.command.edited)
        ended = _start(self.command.line(folder, *self._flags(folder, rng)), self.root).wait()
        if ended.code not in GOOD_CODES:
            raise Violation(f"the last run ended with {ended}")
        found = visible(folder)
        if found != self.right:
            names = [n for n in found | self.right if found.get(n) != self.right.get(n)]
            raise Violation(f"{', '.join(names)} differs from the unbroken run's")
        left = [*os.listdir(_temporary(self.root)), *unmapped(set(os.listdir("/dev/shm")) - shared)]
        if left:
            raise Violation(f"left behind: {', '.join(left)}")
        return hits

    def _flags(self, folder: Path, rng: random.Random) -> tuple[str, ...]:
        if self.command.is_conversion:
            return ("--overwrite",) if (folder / self.command.output).exists() else ()
        return ("--resume", "--batch-size", str(rng.choice((1, 3, 8))))

    def _strike(self, folder: Path, rng: random.Random) -> Completed:
        child = _start(self.command.line(folder, *self._flags(folder, rng)), self.root)
        wait_somewhere(child, folder, rng, self.seconds)
        number = rng.choice(SIGNALS)
        if rng.random() < 0.7:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)
        else:
            child.signal(number)
        if not child.ended(60):
            raise TimeoutError(f"it went on for a minute after {signal.Signals(number).name}")
        check_session_gone(child.pid)
        ended = child.wait()
        if _OURS.search(ended.stderr) or "Internal error" in ended.stderr:
            raise Violation(f"it wrote {ended.stderr!r}")
        started = "init_import_site" not in ended.stderr  # an interrupt while Python itself starts
        if started and ended.code not in (*GOOD_CODES, -number, 128 + number):
            raise Violation(f"after {signal.Signals(number).name} it ended with {ended}")
        return ended

    def _check_between(self, folder: Path) -> None:
        found = visible(folder)
        more = found.keys() - self.right.keys()
        if more:
            raise Violation(f"{', '.join(more)} lies beside the output, where readers see it")
        out = self.command.output
        for name in [name for name in found if name == out or name.startswith("out/")]:
            whole = self.command.is_conversion or name.endswith(".parquet")
            if whole and found[name] != self.right[name]:
                raise Violation(f"{name} is there, but not complete")
        if out not in found or self.command.is_conversion or out.endswith(".parquet"):
            return
        if not self.right[out].startswith(found[out]):
            raise Violation(f"{out} holds other rows than an unbroken run's")

    def _edit(self, folder: Path, edited: Path) -> None:
        """A resumed run refuses an input that was edited, and changes nothing."""
        out = folder / self.command.output
        hidden = [n for n in contents(folder) if ".part" in n or ".rows" in n or "/part" in n]
        if not hidden and not (out.is_file() and out.stat().st_size):
            return  # no rows yet: it may begin with what is there now
        before = visible(folder)
        data = edited.read_bytes()
        try:
            edited.write_bytes(_change(data))
            ended = _start(self.command.line(folder, "--resume"), self.root).wait()
        finally:
            edited.write_bytes(data)
        if ended.code != 2 or len(ended.stderr.splitlines()) != 1:
            raise Violation(f"{edited.name} was edited, and the resumed run ended with {ended}")
        if visible(folder) != before:
            raise Violation(f"a run that was refused for {edited.name} changed the output")


def _change(data: bytes) -> bytes:
    """Another question, or weights that differ a little everywhere."""
    if b"cats" in data:
        return data.replace(b"cats", b"dogs")
    start = 8 + int.from_bytes(data[:8], "little")  # of the tensors in a safetensors file
    return data[:start] + bytes(byte ^ 1 for byte in data[start:])


def _temporary(root: Path) -> Path:
    folder = root / "tmp"
    folder.mkdir(exist_ok=True)
    return folder


def _start(line: list[str], root: Path) -> Child:
    return start_process(line, root, root / "hf", TMPDIR=str(_temporary(root)))


def main() -> int:
    """Command line: returns 1 when any trial failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.commands")
    parser.add_argument("--trials", type=int, default=25, help="of each command")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="NAME[/NUMBER]", help="one command, or one trial of it")
    parser.add_argument(
        "--keep", type=Path, default=Path(tempfile.gettempdir(), "torture-commands")
    )
    options = parser.parse_args()
    report = Report("commands", options.keep)
    name, _, number = (options.only or "").partition("/")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        chosen = []
        for command in build(root):
            if name in ("", command.name) or command.name == "caption":  # conversions take its rows
                trials = Trials.build(command, root)
                chosen += [trials] if name in ("", command.name) else []
        for one in [int(number)] if number else range(options.trials):
            for trials in chosen:
                _try(trials, options.seed, one, report)
    print(report.line())
    return 1 if report.failures else 0


def _try(trials: Trials, seed: int, number: int, report: Report) -> None:
    name = f"{trials.command.name}/{number}"
    repeat = f"python -m tests.torture.commands --seed {seed} --only {name}"
    with report.trial(name, trials.root / "trial", repeat):
        report.survive(trials.command.name, trials.trial(seed, number))


if __name__ == "__main__":
    sys.exit(main())
