"""The options that the three training commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from blip2cli.model.checkpoint.embedded import embedded_root


def training_parser(name: str, minutes: float, description: str) -> argparse.ArgumentParser:
    """A parser with ``--minutes``, ``--folder`` and ``--out`` of the embedded model ``name``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--minutes", type=float, default=minutes, help="minutes of training")
    parser.add_argument("--folder", type=Path, default=Path("build/tiny"), help="for checkpoints")
    parser.add_argument("--out", type=Path, default=embedded_root() / name, help="for the model")
    return parser


def sibling_parser(name: str, minutes: float, description: str) -> argparse.ArgumentParser:
    """The same with ``--tiny``, the trained model to start from."""
    parser = training_parser(name, minutes, description)
    tiny = embedded_root() / "tiny"
    parser.add_argument("--tiny", type=Path, default=tiny, help="whose vision encoder to use")
    return parser
