"""Counts of trials, a line of progress every 20 seconds, and the folders of failed trials."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

EVERY = 20.0  # seconds between two lines of progress


@dataclass
class Report:
    """One series of trials; ``kept`` is where the folders of failed ones stay."""

    title: str
    kept: Path
    survived: Counter[str] = field(default_factory=Counter)  # by format
    notes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _printed: float = field(default_factory=time.monotonic)

    def survive(self, kind: str, number: int = 1) -> None:
        """Count interruptions after which the resumed run was correct."""
        self.survived[kind] += number
        if time.monotonic() - self._printed >= EVERY:
            self._printed = time.monotonic()
            print(self.line(), flush=True)

    @contextlib.contextmanager
    def trial(self, name: str, folder: Path, repeat: str) -> Iterator[None]:
        """Note what is raised in the body: ``folder`` is kept, and ``repeat`` tries it again."""
        try:
            yield
        except (AssertionError, TimeoutError) as error:
            self.fail(name, error, folder, repeat)

    def fail(self, name: str, error: Exception, folder: Path, repeat: str) -> None:
        """Note a trial that failed; its ``folder`` is kept."""
        place = self.kept / name.replace("/", "_").replace(" ", "_")
        if folder.exists():
            shutil.copytree(folder, place, dirs_exist_ok=True)
        text = f"FAILED {name}: {error}\n  kept in {place}\n  again: {repeat}"
        self.failures.append(text)
        print(text, flush=True)

    def line(self) -> str:
        """The counts so far, in one line."""
        parts = [f"{kind} {count}" for kind, count in sorted(self.survived.items())]
        parts += [f"{note}: {count}" for note, count in sorted(self.notes.items())]
        seconds = time.monotonic() - self._began
        return (
            f"{self.title}: {self.survived.total()} survived ({', '.join(parts)}), "
            f"{len(self.failures)} failed; {seconds:.0f} s"
        )
