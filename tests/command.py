"""The console script under test: where it is, and the environment it runs in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from blip2cli.model.checkpoint.embedded import EMBEDDED, embedded_path


def is_embedded(name: str) -> bool:
    """Whether the model ``name`` ships with this installation, weights and all."""
    return name in EMBEDDED and (embedded_path(name) / "config.json").is_file()


COMMAND = Path(sys.executable).with_name("blip2cli")


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(home: Path, **more: str) -> dict[str, str]:
    """The surroundings of a command under test: no hub, no terminal width, no own settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BLIP2CLI_", "HF_", "TRANSFORMERS_", "_BLIP2CLI"))
        and not name.startswith(("AWS_", "FSSPEC_"))
        and name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "PYTHONWARNINGS", "GOMP_SPINCOUNT")
    }
    return kept | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | more
