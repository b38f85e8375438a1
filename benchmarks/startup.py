"""How long a command takes from shell to exit, and where its seconds go.

``python benchmarks/startup.py [--runs N]`` runs each command in turns with the imports it cannot do
without, so that both see the same state of the machine, and prints medians and their ratio; then
when each stage of a caption run was reached, counted from the shell. One run of each beforehand
warms the file cache and is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = str(Path(sys.executable).with_name("blip2cli"))
STAGES = str(Path(__file__).with_name("stages.py"))
CAPTION = ["caption", "sample_images", "--model", "tiny"]
PAIRS = {
    "caption sample_images (12 images)": (
        [COMMAND, *CAPTION, "--quiet"],
        [sys.executable, "-c", "import torch, transformers"],
    ),
    "--help": (
        [COMMAND, "--help"],
        [sys.executable, "-c", "import typer, rich"],
    ),
}
# What a run says of itself with --log-json, as stages.
EVENTS = {"model_ready": "model loaded", "finished": "all rows written"}


@dataclass(frozen=True)
class Startup:
    """The race ``startup``."""

    runs: int = 9

    def fewer(self, images: int | None, rounds: int | None) -> Startup:
        """The same with fewer runs, for trying it out."""
        return self if rounds is None else replace(self, runs=rounds)

    def lines(self) -> list[str]:
        """What was measured, in words."""
        lines = []
        for name, (ours, bare) in PAIRS.items():
            seconds(ours), seconds(bare)
            taken = [(seconds(ours), seconds(bare)) for _ in range(self.runs)]
            median, base = (statistics.median(column) for column in zip(*taken, strict=True))
            ratio = statistics.median(one / other for one, other in taken)
            lines.append(
                f"{name}: {median:.2f} s, {ratio:.2f}x of `{bare[-1]}` ({base:.2f} s); "
                f"medians of {self.runs} runs in turns"
            )
        lines.append("caption sample_images, seconds from the shell: " + self._stages(CAPTION))
        return lines

    def _stages(self, arguments: Sequence[str]) -> str:
        """Each stage's median time, in order."""
        found = [stages(arguments) for _ in range(self.runs)]
        medians = {
            name: statistics.median(one[name] for one in found if name in one)
            for name in dict.fromkeys(name for one in found for name in one)
        }
        order = sorted(medians.items(), key=lambda stage: stage[1])
        return ", ".join(f"{name} {seconds:.2f}" for name, seconds in order)


def seconds(command: Sequence[str]) -> float:
    """Wall-clock seconds of one run. Raises CalledProcessError when it fails."""
    began = time.perf_counter()
    subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def stages(arguments: Sequence[str]) -> dict[str, float]:
    """When each stage of one run was reached, in seconds from its start.

    Seen from outside, by the arrival of what the process says. Raises CalledProcessError when it
    fails.
    """
    began = time.perf_counter()
    command = [sys.executable, STAGES, *arguments, "--log-json"]
    reached: dict[str, float] = {}

    def note(name: str) -> None:
        reached.setdefault(name, time.perf_counter() - began)

    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None

        def read_rows(rows: Sequence[str] = process.stdout) -> None:  # type: ignore[assignment]
            for _ in rows:
                note("first row")

        reader = threading.Thread(target=read_rows)
        reader.start()
        for line in process.stderr:
            if line.startswith("{"):
                event = json.loads(line)
                name = event.get("mark") or EVENTS.get(event["event"])
                if name is not None:
                    note(name)
        process.wait()
        note("exit")
        reader.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return reached


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description="Measure the start-up.")
    parser.add_argument("--runs", type=int, default=9, help="counted runs of each command")
    options = parser.parse_args()
    for line in Startup(options.runs).lines():
        print(line)


if __name__ == "__main__":
    main()
