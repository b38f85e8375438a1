"""A checkout of this project, and how to run its command with its own code and environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAIN = "import sys; sys.argv[0] = 'blip2cli'; from blip2cli.cli.app import main; main()"


@dataclass(frozen=True)
class Checkout:
    """A folder with the package ``blip2cli`` in it, and the interpreter that runs it."""

    folder: Path
    python: Path

    @classmethod
    def at(cls, folder: Path, python: Path | None = None) -> Checkout:
        """The checkout with ``python``, by default that of its own ``.venv``, else this one.

        Raises ValueError unless the interpreter imports the package from the checkout.
        """
        folder = folder.resolve()
        own = folder / ".venv" / "bin" / "python"
        checkout = cls(folder, python or (own if own.exists() else Path(sys.executable)))
        done = checkout.run(["-c", "import blip2cli; print(blip2cli.__file__)"], folder)
        if not done.stdout.startswith(str(folder / "blip2cli").encode()):
            raise ValueError(f"{checkout.python} does not import blip2cli from {folder}")
        return checkout

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Arguments for the interpreter that run ``blip2cli`` as its console script does."""
        return ["-c", MAIN, *arguments]

    def run(self, arguments: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[bytes]:
        """Run the interpreter to its end. Raises CalledProcessError when it fails.

        It keeps compiled modules: one checkout may have them from before.
        """
        own = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return subprocess.run(
            [self.python, *arguments],
            cwd=cwd,
            env=own | {"PYTHONPATH": str(self.folder), "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )

    def seconds(self, arguments: Sequence[str], cwd: Path) -> float:
        """Wall-clock seconds of one run."""
        began = time.perf_counter()
        self.run(arguments, cwd)
        return time.perf_counter() - began
