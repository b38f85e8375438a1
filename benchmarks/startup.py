"""How long a command takes from shell to exit, beside the imports it cannot do without.

``python benchmarks/startup.py [--runs N]`` runs each pair in turns, so that both see the same
state of the machine, and prints medians and their ratio. One run of each beforehand warms the
file cache and is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = str(Path(sys.executable).with_name("blip2cli"))
PAIRS = {
    "caption sample_images (12 images)": (
        [COMMAND, "caption", "sample_images", "--model", "tiny", "--quiet"],
        [sys.executable, "-c", "import torch, transformers"],
    ),
    "--help": (
        [COMMAND, "--help"],
        [sys.executable, "-c", "import typer, rich"],
    ),
}


def seconds(command: list[str]) -> float:
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


def main() -> None:
    """Print one line a pair."""
    parser = argparse.ArgumentParser(description="Measure the start-up.")
    parser.add_argument("--runs", type=int, default=9, help="counted runs of each command")
    runs = parser.parse_args().runs
    print(f"medians of {runs} runs in turns, {os.cpu_count()} cores")
    for name, (ours, bare) in PAIRS.items():
        seconds(ours), seconds(bare)
        taken = [(seconds(ours), seconds(bare)) for _ in range(runs)]
        median, base = (statistics.median(column) for column in zip(*taken, strict=True))
        ratio = statistics.median(one / other for one, other in taken)
        print(f"{name:36} {median:6.2f} s   {bare[-1]:28} {base:6.2f} s   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
