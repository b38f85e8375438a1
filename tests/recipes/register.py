"""What the recipes share: a module under the name a table imports it by, and the command."""

from __future__ import annotations

import sys


def put_module(name: str) -> None:
    """Let the program that runs be importable as ``name``, as if its file lay in that room."""
    sys.modules[name] = sys.modules["__main__"]


def run_command() -> None:
    """Be ``blip2cli`` with the arguments of this process."""
    from blip2cli.cli.app import main

    sys.argv[0] = "blip2cli"
    sys.exit(main())
