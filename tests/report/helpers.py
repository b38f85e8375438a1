"""What the tests of pages share: a page read back, outputs with pictures."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from blip2cli.cli.app import call


@dataclass(frozen=True)
class Page:
    """What a page holds."""

    html: str
    run: dict[str, Any]
    rows: dict[str, list[Any]]
    images: dict[str, list[int]]
    extra: dict[str, list[Any]]

    def row(self, number: int) -> dict[str, Any]:
        """One row."""
        return {name: values[number] for name, values in self.rows.items()}

    def named(self, name: str) -> dict[str, Any]:
        """The first row about an image."""
        return self.row(self.rows["file_name"].index(name))


def read_page(path: Path) -> Page:
    """Read a page as a browser does."""
    html = path.read_text()
    run = re.search(r'<script[^>]*id="run"[^>]*>(.*?)</script>', html, re.DOTALL)
    packed = re.search(r'<script[^>]*id="columns"[^>]*>(.*?)</script>', html, re.DOTALL)
    assert run is not None
    assert packed is not None
    table = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    extra = {one["name"]: one["values"] for one in table["extra"]}
    assert len({len(values) for values in (*table["rows"].values(), *extra.values())}) == 1
    return Page(html, json.loads(run[1]), table["rows"], table["images"], extra)


def report(*arguments: object) -> int:
    """The exit code of ``blip2cli report``."""
    return call(["report", *map(str, arguments)])


def rows_file(path: Path, *rows: dict[str, Any]) -> Path:
    """JSON Lines of ``rows``."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pictures(folder: Path, count: int, size: tuple[int, int] = (64, 48)) -> list[str]:
    """Write ``count`` pictures, each of another colour; their names."""
    folder.mkdir(exist_ok=True)
    names = [f"{number:04}.png" for number in range(count)]
    for number, name in enumerate(names):
        Image.new("RGB", size, (number % 256, 50, 200)).save(folder / name)
    return names
