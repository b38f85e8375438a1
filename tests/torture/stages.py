"""Where a fault may strike: from an empty folder, in a resumed run, in a repair, a merge, …"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.torture import injection
from tests.torture.injection import Trace
from tests.torture.sources import draw_source
from tests.torture.work import (
    ERRORS,
    Broken,
    Reference,
    Work,
    check_final,
    check_finished,
    check_legal,
    check_sentence,
    contents,
)
from tests.torture.zygote import Ended, Zygote

IMAGES = 14
RESUME = ("--resume",)
RETRY = ("--resume", "--retry-errors")


@dataclass(frozen=True)
class Stage:
    """A folder to begin with, a command, and what has to come out in the end."""

    name: str
    work: Work
    start: dict[str, bytes]  # the files of the output's folder before
    flags: tuple[str, ...]
    reference: Reference
    old: Reference | None = None  # what the command replaces
    old_work: Work | None = None  # how that was made

    def lay_out(self, folder: Path) -> None:
        """Make ``folder`` what it is before the command."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, data in self.start.items():
            (folder / name).write_bytes(data)

    def check_between(self, folder: Path) -> None:
        """Raise ``Broken`` unless ``folder`` is what it may be after an interruption."""
        check_legal(folder, [self.reference, *([self.old] if self.old else [])])

    def finish(self, zygote: Zygote, folder: Path) -> None:
        """Go on without a fault; raise ``Broken`` unless that ends as an unbroken run."""
        flags = self.flags if "--resume" in self.flags else RESUME
        ended = self.work.start(zygote, folder, *flags).wait()
        if self.old is not None and ended.code == 2:
            # The old output was still there, made under other settings.
            check_sentence(ended)
            self._finish_old(zygote, folder)
            ended = self.work.start(zygote, folder, "--overwrite").wait()
        check_finished(ended)
        check_final(folder, self.reference)

    def _finish_old(self, zygote: Zygote, folder: Path) -> None:
        """Under its own settings the old output is complete, and what a crash left goes."""
        assert self.old is not None
        assert self.old_work is not None
        check_finished(self.old_work.start(zygote, folder, *RESUME).wait())
        check_final(folder, self.old)

    def record(self, zygote: Zygote, folder: Path, log: Path) -> Trace:
        """Run the command without a fault, and return its calls."""
        self.lay_out(folder)
        child = self.work.start(zygote, folder, *self.flags)
        injection.trace(child, log)
        check_finished(child.wait())
        check_final(folder, self.reference)
        return Trace.read(log, folder, child.pid)

    def run(self, zygote: Zygote, folder: Path, log: Path, trace: Trace, fault: str) -> Ended:
        """Run the command with a fault that strace injects."""
        self.lay_out(folder)
        child = self.work.start(zygote, folder, *self.flags)
        injection.trace(child, log, trace.paths, fault)
        return child.wait()


def build_stages(zygote: Zygote, root: Path, suffix: str) -> Iterator[tuple[Stage, Trace]]:
    """Yield every stage of a format with its undisturbed trace."""
    log, folder = root / "log", root / "trial"
    work = Work(_source(root, "source"), suffix)
    reference = work.unbroken(zygote, root / f"unbroken{suffix}")

    fresh = Stage("fresh", work, {}, RESUME, reference)
    trace = fresh.record(zygote, folder, log)
    yield fresh, trace

    for name, start in _interrupted(fresh, trace, zygote, folder, log).items():
        stage = replace(fresh, name=name, start=start)
        yield stage, stage.record(zygote, folder, log)

    other = replace(work, more=("--prompt", "a"))
    old = other.unbroken(zygote, root / f"old{suffix}")
    stage = Stage("overwrite", work, old.files, ("--overwrite",), reference, old, other)
    yield stage, stage.record(zygote, folder, log)

    mended = replace(work, source=_source(root, "mended"))
    stage = Stage("retry", mended, reference.files, RETRY, reference, reference)
    # Images that succeed now come last, so an unbroken run is no measure of the order.
    stage.lay_out(folder)
    right = Reference.of(mended.start(zygote, folder, *RETRY).wait(), folder, work.name)
    right.check_same_rows(mended.unbroken(zygote, root / f"mended{suffix}"))
    stage = replace(stage, reference=right)
    yield stage, stage.record(zygote, folder, log)


def _source(root: Path, name: str) -> Path:
    folder = root / name
    return folder if folder.exists() else draw_source(folder, IMAGES, mended=name == "mended")


def _interrupted(
    fresh: Stage, trace: Trace, zygote: Zygote, folder: Path, log: Path
) -> dict[str, dict[str, bytes]]:
    """Folders as killed runs leave them, by name."""

    def killed(syscall: str, share: float) -> dict[str, bytes]:
        last = max(call.number for call in trace.calls if call.name == syscall)
        fault = f"{syscall}:signal=SIGKILL:when={max(1, round(last * share))}"
        ended = fresh.run(zygote, folder, log, trace, fault)
        if ended.code != -signal.SIGKILL:
            raise Broken(f"a kill with {fault} did not hit: {ended}")
        return contents(folder)

    if fresh.work.suffix == ".parquet":
        # Before the last rename all parts are there, and the whole merged file.
        return {"half": killed("rename", 0.6), "merge": killed("rename", 1.0)}
    half = killed("write", 0.7)
    output, errors = half[fresh.work.name], half[ERRORS]
    # As after a power cut or a full disk: the last lines are torn, in both files.
    torn = half | {fresh.work.name: output[:-9], ERRORS: errors[:-5]}
    return {"half": half, "torn": torn}
