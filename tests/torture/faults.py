"""A fault at every system call that touches the output, one run for each.

``python -m tests.torture.faults`` goes through every stage of every format, some thousands of
points, with a stub for the model unless ``--real``; ``--only NAME`` repeats one point. At each
call: SIGKILL before it, EIO and ENOSPC instead of it, once and for all calls of its name from
there on. Short writes are real ones: with ``RLIMIT_FSIZE`` the write that reaches the limit stores
what still fits, and the next one fails (strace could only lie about the number, which would be
lost data). Afterwards the folder must be legal, the message one sentence, and a run without a
fault must end as an unbroken one.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fork_server import Completed, ForkServer
from tests.torture import injection
from tests.torture.injection import CHANGING, Trace
from tests.torture.report import Report
from tests.torture.stages import STUB, Stage, build_stages
from tests.workload import FORMATS, GOOD_CODES, Violation, check_finished, check_sentence

KILL = "kill"
ERRORS = {
    "EIO": "error=EIO:when={}",
    "EIO+": "error=EIO:when={}+",
    "ENOSPC": "error=ENOSPC:when={}",
    "ENOSPC+": "error=ENOSPC:when={}+",
}
SIZES = 24  # short writes a stage


@dataclass(frozen=True)
class Point:
    """One fault: where, and what."""

    stage: Stage
    trace: Trace
    kind: str  # "kill", one of ERRORS, or "size"
    call: str  # the system call; empty for a size
    number: int  # of the call, or bytes

    @property
    def name(self) -> str:
        """For people, and for ``--only``."""
        what = f"{self.call}-{self.number}" if self.call else str(self.number)
        return f"{self.stage.workload.suffix}/{self.stage.name}/{self.kind}/{what}"

    def inject(self, fork_server: ForkServer, root: Path) -> bool:
        """Run with the fault, check, go on without, check; False when it did not come about.

        Raises ``Violation`` (or ``TimeoutError``); the folder ``trial`` stays then.
        """
        folder, log = root / "trial", root / "log"
        if self.kind == "size":
            ended, hit = self._limited(fork_server, folder)
        else:
            how = ERRORS.get(self.kind, "signal=SIGKILL:when={}").format(self.number)
            ended = self.stage.run(fork_server, folder, log, self.trace, f"{self.call}:{how}")
            hit = ended.code == -signal.SIGKILL or "(INJECTED)" in log.read_text(errors="replace")
        self._check_end(ended)
        self.stage.check_between(folder)
        self.stage.finish(fork_server, folder)
        return hit

    def _limited(self, fork_server: ForkServer, folder: Path) -> tuple[Completed, bool]:
        self.stage.lay_out(folder)
        workload, flags = self.stage.workload, self.stage.flags
        ended = workload.start(fork_server, folder, *flags, file_size=self.number).wait()
        return ended, ended.code not in GOOD_CODES

    def _check_end(self, ended: Completed) -> None:
        if ended.code in GOOD_CODES:
            if ended.stderr:
                raise Violation(f"it succeeded, but wrote {ended.stderr!r}")
        elif self.kind != KILL:
            check_sentence(ended)
        elif ended.code != -signal.SIGKILL:
            check_finished(ended)


def points_of(stage: Stage, trace: Trace) -> Iterator[Point]:
    """Every fault of a stage: each kind at each system call, then the short writes."""
    for call in trace.calls:
        kinds = [KILL, *ERRORS] if call.name in CHANGING else ["EIO"]
        for kind in kinds:
            yield Point(stage, trace, kind, call.name, call.number)
    largest = max(map(len, stage.reference.files.values()))
    for step in range(SIZES):
        yield Point(stage, trace, "size", "", largest * step // SIZES)


def sample(points: Sequence[Point], number: int, seed: int) -> list[Point]:
    """``number`` random points, every kind and stage among them when possible."""
    rng = random.Random(seed)
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((point.stage.name, point.kind), []).append(point)
    heaps = list(groups.values())
    rng.shuffle(heaps)
    for heap in heaps:
        rng.shuffle(heap)
    chosen: list[Point] = []
    while len(chosen) < min(number, len(points)):
        chosen += [heap.pop() for heap in heaps if heap]
    return chosen[:number]


def main() -> int:
    """Go through all points; returns 1 when any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.faults")
    parser.add_argument("--points", type=int, help="at most this many a format, drawn at random")
    parser.add_argument("--seed", type=int, default=1, help="of that draw")
    parser.add_argument("--real", action="store_true", help="with the model, not a stub")
    parser.add_argument("--only", metavar="NAME", help="points whose name begins so")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "torture-faults"))
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--share", type=int, nargs=2, default=(0, 1), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not injection.available():
        print(injection.MISSING, file=sys.stderr)
        return 1
    if options.jobs > 1:
        return _side_by_side(options.jobs)
    share, shares = options.share
    title = f"faults, share {share + 1} of {shares}" if shares > 1 else "faults"
    report = Report(title, options.keep)
    with (
        tempfile.TemporaryDirectory() as folder,
        ForkServer(None if options.real else STUB) as fork_server,
    ):
        root = Path(folder)
        for suffix in FORMATS:
            if options.only and not options.only.startswith(suffix + "/"):
                continue
            points = [
                p for stage in build_stages(fork_server, root, suffix) for p in points_of(*stage)
            ]
            if options.only:
                points = [p for p in points if p.name.startswith(options.only)]
            print(f"{suffix}: {len(points)} points of failure", flush=True)
            if options.points is not None:
                points = sample(points, options.points, options.seed)
            for point in points:
                if zlib.crc32(point.name.encode()) % shares == share:
                    _try(point, fork_server, root, report)
    print(report.line())
    return 1 if report.failures else 0


def _side_by_side(jobs: int) -> int:
    """Share the points among processes, by the points' names; 1 when any failed."""
    command = [sys.executable, "-m", "tests.torture.faults", *sys.argv[1:], "--jobs", "1"]
    processes = [
        subprocess.Popen([*command, "--share", str(share), str(jobs)]) for share in range(jobs)
    ]
    return max(process.wait() for process in processes)


def _try(point: Point, fork_server: ForkServer, root: Path, report: Report) -> None:
    repeat = f"python -m tests.torture.faults --only {point.name}"
    with report.trial(point.name, root / "trial", repeat):
        if point.inject(fork_server, root):
            report.survive(point.stage.workload.suffix)
        else:
            report.notes["did not come about"] += 1


if __name__ == "__main__":
    sys.exit(main())
