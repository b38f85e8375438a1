"""The lines of the guides for other tools, run with the tools themselves."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from blip2cli.cli.app import call

pytestmark = pytest.mark.external

ROOT = Path(__file__).parents[2]
PUBLISH = (ROOT / "docs" / "guides" / "publish.md").read_text(encoding="utf-8")
REPORT = (ROOT / "docs" / "guides" / "review.md").read_text(encoding="utf-8")
COPIES = 4  # of the sample images: a map needs some


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, their captions and their vectors."""
    folder = tmp_path_factory.mktemp("outputs")
    for copy in range(COPIES):
        shutil.copytree(ROOT / "sample_images", folder / "photos" / str(copy))
    photos = str(folder / "photos")
    for command, out in (
        ("caption", "captions.jsonl"),
        ("caption", "captions.parquet"),
        ("embed", "vectors.parquet"),
    ):
        assert call([command, photos, "--model", "tiny", "-q", "-o", str(folder / out)]) == 0
    return folder


@pytest.fixture
def folder(outputs: Path, tmp_path: Path) -> Path:
    """The same, to write into."""
    for path in outputs.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def names(folder: Path) -> list[str]:
    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["file_name"] for line in lines]


def block(tool: str) -> str:
    (found,) = re.findall(rf"<!-- {tool} -->\n```\w+\n(.*?)```", PUBLISH, re.DOTALL)
    return str(found)


def run_block(tool: str, folder: Path, python: str = sys.executable) -> list[str]:
    """What a block of Python prints."""
    done = subprocess.run(
        [python, "-c", block(tool)],
        cwd=folder,
        env=os.environ | {"HOME": str(folder), "FIFTYONE_DO_NOT_TRACK": "true"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def python_with(package: str) -> str:
    """A Python that has ``package``, by a variable: it holds torch or NumPy at other versions."""
    variable = f"{package.upper()}_PYTHON"
    if variable not in os.environ:
        pytest.skip(f"{variable} names no Python that has {package}")
    return os.environ[variable]


def test_duckdb(folder: Path) -> None:
    ask = f"import duckdb; duckdb.sql({block('duckdb')!r})"
    subprocess.run([sys.executable, "-c", ask], cwd=folder, check=True, timeout=300)
    with open(folder / "good.csv", encoding="utf-8", newline="") as file:
        assert [row["file_name"] for row in csv.DictReader(file)] == sorted(names(folder))


def test_sqlite(folder: Path) -> None:
    run_block("sqlite", folder)
    with sqlite3.connect(folder / "captions.db") as db:
        cats = db.execute("select file_name from captions where caption like '%two cats%'")
        found = [name for (name,) in cats]
    db.close()
    assert found == [name for name in names(folder) if name.endswith("cats.png")]
    assert len(found) == COPIES


@pytest.mark.skipif(find_spec("lance") is None, reason="pylance is not installed")
def test_lance(folder: Path) -> None:
    (printed,) = run_block("lance", folder)
    nearest = re.findall(r"'(.*?)'", printed)
    assert {name.partition("/")[2] for name in nearest} == {"breakfast.jpg"}  # its copies


def test_fiftyone(folder: Path) -> None:
    assert run_block("fiftyone", folder, python_with("fiftyone"))[-1] == str(len(names(folder)))


def test_embedding_atlas(folder: Path) -> None:
    program = Path(python_with("embedding_atlas")).with_name("embedding-atlas")
    (line,) = re.findall(r"^(embedding-atlas .*--export-application.*)$", REPORT, re.MULTILINE)
    subprocess.run([program, *shlex.split(line)[1:]], cwd=folder, check=True, timeout=600)
    assert (folder / "map.zip").stat().st_size > 1 << 20
