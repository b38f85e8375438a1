"""The process in which one peer lives: ``python benchmarks/host.py KIND PEER MODEL DTYPE``.

Reads one ``Work`` and one ``Setting`` a line (JSON) and answers with its seconds and what came of
it. Several of these processes stand ready side by side and run in turns, so that all see the same
state of the machine; each loads its weights once, whatever settings are tried.

Peers that are packages with requirements of their own have an interpreter of their own.

Preprocessing is told apart from the rest by its clock: processor seconds on one thread, so that
it is images a second and core.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peers import interpreter, load
from work import Setting, Work


@dataclass
class Host:
    """The other end: starts the process and talks to it."""

    kind: str
    peer: str
    model: Path
    dtype: str

    def __post_init__(self) -> None:
        arguments = (self.kind, self.peer, str(self.model), self.dtype)
        one = {"OMP_NUM_THREADS": "1"} if self.kind == "pixels" else {}
        self._process = subprocess.Popen(
            [interpreter(self.peer), __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | one,
            text=True,
        )
        self._answer()

    def run(self, work: Work, setting: Setting) -> dict[str, Any]:
        """Do a ``Work``; returns ``seconds``, ``answers``, ``peak_mib`` and, where the peer says
        what it is, ``about``.

        Raises RuntimeError when the process died.
        """
        assert self._process.stdin is not None
        request = {"work": work.as_json(), "setting": asdict(setting)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer {self.peer} ended (exit {self._process.wait()})")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    """Load the peer, then do what comes."""
    kind, peer, model, dtype = sys.argv[1:]
    if peer == "ours":
        from blip2cli.system.openmp import before_torch

        before_torch()  # as the commands do
    clock = time.process_time if kind == "pixels" else time.perf_counter
    racer = load(kind, peer, model, dtype)
    say({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        work, setting = Work.from_json(request["work"]), Setting(**request["setting"])
        began = clock()
        answers = racer.run(work, setting)
        seconds = clock() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        about = getattr(racer, "about", "")
        plain = racer.plain(answers)
        say({"seconds": seconds, "answers": plain, "peak_mib": peak, "about": about})


def say(value: dict[str, Any]) -> None:
    """One line for the other end. What else prints, in processes below as well, goes elsewhere."""
    print(json.dumps(value), file=answers, flush=True)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    main()
