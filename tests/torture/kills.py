"""Runs killed with SIGKILL at random instants, several times over, and resumed.

``python -m tests.torture.kills --kills 1000 --seed 7`` prints how many kills were survived;
``--only .parquet/17`` repeats one trial with all its choices. What cannot be repeated is how far
a process has come after so many milliseconds, so a rare fault may take a few repetitions.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.drawn_source import draw_source
from tests.fork_server import Child, ForkServer
from tests.torture.kill_series import chosen, parser_of, survive_kills
from tests.torture.stages import STUB
from tests.workload import (
    FORMATS,
    Reference,
    Workload,
    check_final,
    check_finished,
    check_legal,
)

IMAGES = 40
DEEPEST = 5  # kills before the last resume


@dataclass(frozen=True)
class KillTrials:
    """Trials of one output format: the command, its unbroken output and how long that takes."""

    fork_server: ForkServer
    root: Path
    workload: Workload
    reference: Reference
    seconds: float  # of an unbroken run

    @classmethod
    def build(cls, fork_server: ForkServer, root: Path, source: Path, suffix: str) -> KillTrials:
        """Run the command once without a kill."""
        workload = Workload(source, suffix)
        began = time.monotonic()
        reference = workload.unbroken(fork_server, root / f"unbroken{suffix}")
        return cls(fork_server, root, workload, reference, time.monotonic() - began)

    def trial(self, seed: int, number: int) -> int:
        """One chain of kills and the resume after them; returns how many kills hit a run.

        Raises ``Violation`` (or ``TimeoutError``); the folder ``trial`` stays then.
        """
        rng = random.Random(f"{seed}/{self.workload.suffix}/{number}")
        folder = self.root / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        hits = 0
        for depth in range(rng.randint(1, DEEPEST)):
            # The very first command may be a plain one or a --resume with nothing to go on with.
            flags = ("--resume",) if depth or rng.random() < 0.5 else ()
            size = rng.choice((1, 2, 3, 5, 8))
            child = self.workload.start(self.fork_server, folder, *flags, batch_size=size)
            ended = kill_somewhere(child, folder, rng, self.seconds)
            hits += ended == -signal.SIGKILL
            check_legal(folder, [self.reference])
            if ended != -signal.SIGKILL:
                break
        size = rng.choice((1, 2, 3, 5, 8))
        last = self.workload.start(self.fork_server, folder, "--resume", batch_size=size)
        check_finished(last.wait())
        check_final(folder, self.reference)
        return hits


def kill_somewhere(child: Child, folder: Path, rng: random.Random, seconds: float) -> int:
    """Let it run and kill it after a random time, or just after files have changed."""
    child.go()
    wait_somewhere(child, folder, rng, seconds)
    child.signal(signal.SIGKILL)
    return child.wait().code


def wait_somewhere(child: Child, folder: Path, rng: random.Random, seconds: float) -> None:
    """Wait for a random time, or until just after files have changed."""
    delay = rng.uniform(0, seconds)
    changes = rng.randint(1, 25)
    if rng.random() < 0.4:
        child.ended(delay)
    else:
        before = _state(folder)
        while changes and not child.ended(0.0003):
            now = _state(folder)
            changes -= now != before
            before = now
        child.ended(rng.choice((0.0, 0.0, rng.uniform(0, 0.002))))


def _state(folder: Path) -> set[tuple[str, int]]:
    state = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                state.add((entry.name, entry.stat().st_size))
            except FileNotFoundError:  # renamed or removed just now
                state.add((entry.name, -1))
    return state


def main() -> int:
    """Command line: kill until enough kills were survived; returns 1 when any trial failed."""
    parser = parser_of("kills", kills=1000)
    parser.add_argument("--stub", action="store_true", help="with a stub, not the model")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        ForkServer(STUB if options.stub else None) as fork_server,
    ):
        root = Path(folder)
        source = draw_source(root / "source", IMAGES)
        trials = {
            suffix: KillTrials.build(fork_server, root, source, suffix).trial
            for suffix in chosen(options, FORMATS)
        }
        return survive_kills("kills", options, trials, root / "trial")


if __name__ == "__main__":
    sys.exit(main())
