"""Rules for the whole code base that no linter knows: CONTRIBUTING.md gives the reasons."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"fsspec", "huggingface_hub", "numpy", "PIL", "pyarrow", "tokenizers", "torch", "tqdm",
         "transformers"}  # fmt: skip


def files(*folders: str) -> list[Path]:
    """The Python files below these folders of the repository."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_only_the_families_name_a_family() -> None:
    name = re.compile("opt|t5|bert")
    found = [
        f"{shown(path)}:{node.lineno}"
        for path in files("blip2cli")
        if "families" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and name.fullmatch(node.value)
    ]
    assert found == []


@pytest.mark.parametrize("module", ["blip2cli", "blip2cli.cli.app"])
def test_libraries_are_imported_when_they_are_needed(module: str) -> None:
    script = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert HEAVY & set(done.stdout.split()) == set()
