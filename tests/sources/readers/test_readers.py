"""The table of readers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from blip2cli.sources import readers
from blip2cli.sources.readers import READERS, describe_sources, find_reader

Tree = Callable[..., Path]


def test_every_reader_is_in_the_table_and_opens_a_source() -> None:
    modules = {path.stem for path in Path(readers.__file__).parent.glob("*.py")} - {"__init__"}
    assert {reader.name for reader in READERS} == modules
    for name in modules:
        assert callable(import_module(f"blip2cli.sources.readers.{name}").open_source)


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("-", "stdin"),
        ("", "folder"),
        ("a.png", "files"),
        ("m.TSV", "manifest"),
        ("t.parquet", "parquet"),
        ("s.tar.gz", "tar"),
        ("z.zip", "zips"),
        ("[1].png", "files"),
        ("*.zip", "globs"),
        ("s3://bucket/s.tar", "tar"),
        ("s3://bucket/*.tar", "remote"),
        ("https://host/a.png", "remote"),
        ("absent.zip", None),
    ],
)
def test_a_source_is_recognised(argument: str, name: str | None, tree: Tree) -> None:
    root = tree("a.png", "m.TSV", "t.parquet", "s.tar.gz", "z.zip", "[1].png")
    text = argument if argument == "-" or "://" in argument else f"{root}/{argument}"
    reader = find_reader(text)
    assert (reader and reader.name) == name


def test_the_help_text_names_every_kind() -> None:
    assert all(reader.kind.lower() in describe_sources().lower() for reader in READERS)


def test_the_table_imports_no_reader() -> None:
    code = (
        "import sys, blip2cli.sources.readers\n"
        "print([name for name in sys.modules if name.startswith('blip2cli.sources.readers.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
