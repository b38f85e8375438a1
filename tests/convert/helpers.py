"""What the tests of conversions share: rows, files of them, and readers in other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from blip2cli.convert import Converted, ConvertOptions
from blip2cli.convert import convert as run
from blip2cli.storage.text_encoding import to_json
from tests.command import environment

Row = dict[str, Any]
NAMES = ("COCO_val2014_000000000012.jpg", "farm/two.cows_7.png", "x 33.webp")


def convert(*paths: str | Path, **options: Any) -> Converted:
    """Convert all but the last path into the last."""
    *sources, out = map(str, paths)
    return run(ConvertOptions(tuple(sources), out, **options))


def write_rows(path: Path, rows: list[Row]) -> Path:
    """A JSONL file, as our own sink writes it."""
    path.write_bytes(b"".join(to_json(row) + b"\n" for row in rows))
    return path


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def draw(folder: Path) -> Path:
    """A folder with an image for each of NAMES, each of another width."""
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + number, 16), (80 * number, 40, 200)).save(folder / name)
    return folder


def captions() -> list[Row]:
    """A caption for each of NAMES."""
    return [
        {"file_name": name, "width": 20 + i, "height": 16, "caption": text, "logprob": -0.5 * i}
        for i, (name, text) in enumerate(
            zip(NAMES, ("a fort", "two\ncows", "ein Stück"), strict=True)
        )
    ]


def answers() -> list[Row]:
    """Two answers for each of NAMES."""
    return [
        {
            "file_name": name,
            "width": 20 + i,
            "height": 16,
            "question": question,
            "question_id": str(10 * i + j),
            "answer": f"{question[0]}{i}",
            "logprob": -0.25,
        }
        for i, name in enumerate(NAMES)
        for j, question in enumerate(("is it red?", "how many?"))
    ]


def vectors(count: int = 3, size: int = 4) -> list[Row]:
    """A vector for each of ``count`` images; each is nearest to itself."""
    return [
        {
            "file_name": f"{i:05d}.jpg",
            "width": 20,
            "height": 16,
            "embedding": [float((i * (j + 3)) % 7) - 1.5 + (i == j) for j in range(size)],
            "kind": "image",
        }
        for i in range(count)
    ]


def in_subprocess(code: str, *arguments: str | Path) -> Any:
    """Run Python ``code`` in a process of its own, as a user of the file would; its JSON output.

    ``sys.argv[1:]`` are the arguments. The readers bring warnings and threads of their own.
    """
    home = Path(os.environ.get("TMPDIR", "/tmp"))
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{code}", *map(str, arguments)],
        env=environment(home / "hf", HF_DATASETS_OFFLINE="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
