"""The process in which one peer lives: ``python benchmarks/host.py PEER MODEL DTYPE BATCH``.

Reads one ``Work`` a line (JSON) and answers with its seconds and its token ids. Several of these
processes stand ready side by side and run in turns, so that all see the same state of the machine.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Host:
    """The other end: starts the process and talks to it."""

    peer: str
    model: Path
    dtype: str
    batch_size: int

    def __post_init__(self) -> None:
        arguments = (self.peer, str(self.model), self.dtype, str(self.batch_size))
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def run(self, work: dict[str, Any]) -> dict[str, Any]:
        """Do a ``Work``; returns ``seconds`` and ``tokens``. Raises RuntimeError when it died."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(work) + "\n")
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
    from peers import PEERS
    from work import Work

    peer, model, dtype, batch_size = sys.argv[1:]
    racer = PEERS[peer](model, dtype, int(batch_size))
    say({"ready": True})
    for line in sys.stdin:
        work = Work.from_json(json.loads(line))
        began = time.perf_counter()
        tokens = racer.run(work)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        say({"seconds": seconds, "tokens": tokens, "peak_mib": peak})


def say(value: dict[str, Any]) -> None:
    """One line for the other end; whatever else prints goes elsewhere."""
    print(json.dumps(value), file=answers, flush=True)


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr
    main()
