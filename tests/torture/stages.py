"""Starting states for fault injection: an empty folder, a half-written output, one to replace, …"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.drawn_source import draw_source
from tests.fork_server import Completed, ForkServer
from tests.torture import injection
from tests.torture.injection import Trace
from tests.workload import (
    ERRORS,
    Reference,
    Violation,
    Workload,
    check_final,
    check_finished,
    check_legal,
    check_sentence,
    contents,
)

IMAGES = 14
STUB = "tests.torture.stub_model"
RESUME = ("--resume",)
RETRY = ("--resume", "--retry-errors", "--moved-source")


@dataclass(frozen=True)
class Stage:
    """A folder to begin with, a command, and the output expected in the end."""

    name: str
    workload: Workload
    start: dict[str, bytes]  # the files of the output's folder before
    flags: tuple[str, ...]
    reference: Reference
    old: Reference | None = None  # what the command replaces
    old_workload: Workload | None = None  # how that was made

    def lay_out(self, folder: Path) -> None:
        """Fill ``folder`` with the files from before the command."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, data in self.start.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)

    def check_between(self, folder: Path) -> None:
        """Raise ``Violation`` unless ``folder`` is what it may be after an interruption."""
        check_legal(folder, [self.reference, *([self.old] if self.old else [])])

    def finish(self, fork_server: ForkServer, folder: Path) -> None:
        """Resume without a fault; raise ``Violation`` unless that ends as an unbroken run."""
        flags = self.flags if "--resume" in self.flags else RESUME
        ended = self.workload.start(fork_server, folder, *flags).wait()
        if self.old is not None and ended.code == 2:
            # The old output was still there, made under other settings.
            check_sentence(ended)
            self._finish_old(fork_server, folder)
            ended = self.workload.start(fork_server, folder, "--overwrite").wait()
        check_finished(ended)
        check_final(folder, self.reference)

    def _finish_old(self, fork_server: ForkServer, folder: Path) -> None:
        """Under its own settings the old output is complete, and what a crash left goes."""
        assert self.old is not None
        assert self.old_workload is not None
        check_finished(self.old_workload.start(fork_server, folder, *RESUME).wait())
        check_final(folder, self.old)

    def record(self, fork_server: ForkServer, folder: Path, log: Path) -> Trace:
        """Run the command without a fault, and return its calls."""
        self.lay_out(folder)
        child = self.workload.start(fork_server, folder, *self.flags)
        injection.trace(child, log)
        check_finished(child.wait())
        check_final(folder, self.reference)
        return Trace.read(log, folder, child.pid)

    def run(
        self, fork_server: ForkServer, folder: Path, log: Path, trace: Trace, fault: str
    ) -> Completed:
        """Run the command with a fault that strace injects."""
        self.lay_out(folder)
        child = self.workload.start(fork_server, folder, *self.flags)
        injection.trace(child, log, trace.paths, fault)
        return child.wait()


def build_stages(fork_server: ForkServer, root: Path, suffix: str) -> Iterator[tuple[Stage, Trace]]:
    """Yield every stage of a format with its undisturbed trace."""
    log, folder = root / "log", root / "trial"
    workload = Workload(_source(root, "source"), suffix)
    reference = workload.unbroken(fork_server, root / f"unbroken{suffix}")

    fresh = Stage("fresh", workload, {}, RESUME, reference)
    trace = fresh.record(fork_server, folder, log)
    yield fresh, trace

    for name, start in _interrupted(fresh, trace, fork_server, folder, log).items():
        stage = replace(fresh, name=name, start=start)
        yield stage, stage.record(fork_server, folder, log)

    other = replace(workload, extra=("--prompt", "a"))
    old = other.unbroken(fork_server, root / f"old{suffix}")
    stage = Stage("overwrite", workload, old.files, ("--overwrite",), reference, old, other)
    yield stage, stage.record(fork_server, folder, log)

    repaired = replace(workload, source=_source(root, "repaired"))
    stage = Stage("retry", repaired, reference.files, RETRY, reference, reference)
    # Images that succeed now come last, so an unbroken run is no measure of the order.
    stage.lay_out(folder)
    right = Reference.of(repaired.start(fork_server, folder, *RETRY).wait(), folder, workload.name)
    right.check_same_rows(repaired.unbroken(fork_server, root / f"rerun{suffix}"))
    stage = replace(stage, reference=right)
    yield stage, stage.record(fork_server, folder, log)


def _source(root: Path, name: str) -> Path:
    folder = root / name
    return folder if folder.exists() else draw_source(folder, IMAGES, repaired=name == "repaired")


def _interrupted(
    fresh: Stage, trace: Trace, fork_server: ForkServer, folder: Path, log: Path
) -> dict[str, dict[str, bytes]]:
    """Folders as killed runs leave them, by name."""

    def killed(syscall: str, share: float) -> dict[str, bytes]:
        last = max(call.number for call in trace.calls if call.name == syscall)
        fault = f"{syscall}:signal=SIGKILL:when={max(1, round(last * share))}"
        ended = fresh.run(fork_server, folder, log, trace, fault)
        if ended.code != -signal.SIGKILL:
            raise Violation(f"a kill with {fault} did not hit: {ended}")
        return contents(folder)

    if fresh.workload.suffix in (".parquet", "/"):
        # Before the last link all parts are there, and the whole merged file.
        return {"half": killed("link", 0.6), "merge": killed("link", 1.0)}
    half = killed("write", 0.7)
    name = fresh.workload.name
    output, errors = half[name], half[name + ERRORS]
    # As after a power cut or a full disk: the last lines are torn, in both files.
    torn = half | {name: output[:-9], name + ERRORS: errors[:-5]}
    return {"half": half, "torn": torn}
