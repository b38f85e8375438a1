"""Starts commands quickly: a process that has imported the libraries and forks for each of them.

Run by its path with a checkout as the argument, so that nothing but the libraries is shared between
versions. It reads an order a line (see ``WarmStarter.run``) and answers each with an exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LIBRARIES = (
    "typer",
    "rich.table",
    "torch",
    "numpy",
    "PIL.Image",
    "pyarrow.parquet",
    "safetensors.torch",
    "tokenizers",
    "tqdm",
    "huggingface_hub",
    "transformers.models.blip_2.modeling_blip_2",
    "transformers.models.opt.modeling_opt",
    "transformers.models.t5.modeling_t5",
)


class WarmStarter:
    """The client's side, for one command at a time."""

    def __init__(self, python: str, checkout: str, environment: Mapping[str, str]) -> None:
        self.checkout = checkout
        self.process = subprocess.Popen(
            [python, __file__, checkout],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], stdin: bytes
    ) -> tuple[int, bytes, bytes]:
        """The exit code, stdout and stderr of ``blip2cli`` with these arguments."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        files = [folder.with_name(f"{folder.name}.{name}") for name in ("in", "out", "err")]
        files[0].write_bytes(stdin)
        order = {
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": {**environment, "PYTHONPATH": self.checkout},
            "files": [str(file) for file in files],
        }
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        result = code, files[1].read_bytes(), files[2].read_bytes()
        for file in files:
            file.unlink()
        return result

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def _serve(checkout: str) -> None:
    sys.path[0] = checkout
    for name in _LIBRARIES:
        importlib.import_module(name)
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            _become(json.loads(line))
            from blip2cli.cli.app import main

            sys.exit(main())
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _become(order: dict[str, Any]) -> None:
    """Make this process look like one that was started with these arguments."""
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    flags = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)
    for number, (file, flag) in enumerate(zip(order["files"], flags, strict=True)):
        descriptor = os.open(file, flag)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.argv = ["blip2cli", *order["arguments"]]


if __name__ == "__main__":
    _serve(sys.argv[1])
