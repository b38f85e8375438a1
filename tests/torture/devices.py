"""Runs with several devices: workers and the main process killed at random instants, and resumed.

``python -m tests.torture.devices --kills 300 --seed 7`` prints how many kills were survived;
``--only .parquet/17`` repeats one trial with all its choices, but for how far the processes have
come after so many milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tests.drawn_source import draw_source
from tests.fork_server import Child, ForkServer
from tests.processes import children, eventually_gone
from tests.torture.kill_series import chosen, parser_of, survive_kills
from tests.workload import (
    Reference,
    Violation,
    Workload,
    check_final,
    check_finished,
    check_legal,
)

IMAGES = 60
FORMATS = (".jsonl", ".parquet")
DEVICES = ("cpu", "cpu,cpu", "cpu,cpu", "cpu,cpu,cpu")
DEEPEST = 4  # runs before the last resume
MOST_WORKERS = 4  # that are killed in one run
SECONDS_TO_END = 2.0  # for workers whose main process was killed
GIVEN_UP = 1  # exit code of a run whose workers were all killed again and again


@dataclass(frozen=True)
class DeviceTrials:
    """Trials of one output format: the command, its unbroken output and how long that takes."""

    fork_server: ForkServer
    root: Path
    workload: Workload
    reference: Reference
    seconds: float  # of an unbroken run with two devices

    @classmethod
    def build(cls, fork_server: ForkServer, root: Path, source: Path, suffix: str) -> DeviceTrials:
        """Run the command without a kill, in one process and in two."""
        workload = Workload(source, suffix)
        reference = workload.unbroken(fork_server, root / f"one{suffix}")
        began = time.monotonic()
        two = replace(workload, extra=("--device", "cpu,cpu"))
        folder = root / f"two{suffix}"
        two.unbroken(fork_server, folder)
        check_final(folder, reference)
        return cls(fork_server, root, workload, reference, time.monotonic() - began)

    def trial(self, seed: int, number: int) -> int:
        """A chain of runs with kills, and the resume after them; returns how many kills hit.

        Raises ``Violation`` (or ``TimeoutError``); the folder ``trial`` stays then.
        """
        rng = random.Random(f"{seed}/{self.workload.suffix}/{number}")
        folder = self.root / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        hits = 0
        for depth in range(rng.randint(1, DEEPEST)):
            flags = ("--resume",) if depth or rng.random() < 0.5 else ()
            child = self._start(folder, rng, *flags)
            hits += self._kill_some(child, rng)
            ended = child.wait()
            check_legal(folder, [self.reference])
            if ended.code not in (-signal.SIGKILL, GIVEN_UP):
                check_finished(ended)
                break
        check_finished(self._start(folder, rng, "--resume").wait())
        check_final(folder, self.reference)
        return hits

    def _start(self, folder: Path, rng: random.Random, *flags: str) -> Child:
        workload = replace(self.workload, extra=("--device", rng.choice(DEVICES)))
        size = rng.choice((1, 2, 3, 5, 8))
        child = workload.start(self.fork_server, folder, *flags, batch_size=size)
        child.go()
        return child

    def _kill_some(self, child: Child, rng: random.Random) -> int:
        """Kill some workers of a run, one after the other, and perhaps the run itself."""
        hits = 0
        for _ in range(rng.randint(0, MOST_WORKERS)):
            if child.ended(rng.uniform(0, self.seconds / 2)):
                return hits
            workers = sorted(children(child.pid))
            if workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), signal.SIGKILL)
                    hits += 1
        if rng.random() < 0.3 or child.ended(rng.uniform(0, self.seconds)):
            return hits
        family = children(child.pid)
        family |= {each for worker in family for each in children(worker)}
        child.signal(signal.SIGKILL)
        if not eventually_gone(family, SECONDS_TO_END):
            raise Violation(f"a worker lived {SECONDS_TO_END:g} s longer than the main process")
        return hits + 1


def main() -> int:
    """Command line: kill until enough kills were survived; returns 1 when any trial failed."""
    options = parser_of("devices", kills=300).parse_args()
    with tempfile.TemporaryDirectory() as folder, ForkServer() as fork_server:
        root = Path(folder)
        source = draw_source(root / "source", IMAGES)
        trials = {
            suffix: DeviceTrials.build(fork_server, root, source, suffix).trial
            for suffix in chosen(options, FORMATS)
        }
        return survive_kills("devices", options, trials, root / "trial")


if __name__ == "__main__":
    sys.exit(main())
