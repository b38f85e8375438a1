"""Rules for the whole code base that no linter knows: CONTRIBUTING.md gives the reasons."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.slow import SLOW_FILES

ROOT = Path(__file__).parents[1]
LONGEST = 300  # lines a file may have
LONGER = {"blip2cli/pipeline/pretended_device.py"}  # one idea that takes more

# Words of names, and what the field says.
WORDS = {
    "ahead": "prefetch",
    "alone": "single_thread",
    "begun": "pending",
    "hush": "silence_stderr",
    "kept": "carried",
    "lane": "batch_thread",
    "lanes": "batch_threads",
    "late": "pipelined",
    "mend": "remedy, repair",
    "mended": "repaired",
    "patient": "model_under_test",
    "said": "text, generated",
    "told": "reported",
    "wary": "isolated",
}
# Phrases of docstrings and comments that say nothing to a reader who was not there.
PHRASES = re.compile(
    r"\b(so many|what is there|at hand|as it goes|mend(s|ed|ing)?|begun|wary|hush)\b"
)
COMMENT = re.compile(r"(?:^\s*|  )#.*")
HEAVY = {"fsspec", "huggingface_hub", "numpy", "PIL", "pyarrow", "tokenizers", "torch", "tqdm",
         "transformers"}  # fmt: skip


def files(*folders: str) -> list[Path]:
    """The Python files below these folders of the repository."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_file_is_longer_than_one_idea() -> None:
    lengths = {
        shown(path): len(path.read_text().splitlines())
        for path in files("blip2cli", "training", "benchmarks")
    }
    assert {n: k for n, k in lengths.items() if k > LONGEST and n not in LONGER} == {}


def test_only_the_command_line_spells_options_as_flags() -> None:
    flag = re.compile(r"(?<![\w-])--[a-z]")
    found = [
        f"{shown(path)}:{line}: {text.strip()[:80]}"
        for path in files("blip2cli")
        # Declarations say how a flag is called that is not called as its option.
        if not {"cli", "options", "errors.py"} & set(path.relative_to(ROOT / "blip2cli").parts)
        for line, text in _strings_and_comments(path)
        if flag.search(text) and "pip install" not in text
    ]
    assert found == []


def test_names_and_comments_are_in_the_words_of_the_field() -> None:
    found = []
    for path in files("blip2cli", "training", "benchmarks"):
        for line, name in _names(path):
            words = set(re.findall(r"[a-z]+", re.sub(r"([A-Z])", r"_\1", name).lower()))
            found += [
                f"{shown(path)}:{line}: {name}: rather {WORDS[word]}"
                for word in words & WORDS.keys()
            ]
        found += [
            f"{shown(path)}:{line}: {match[0]}"
            for line, text in _remarks(path)
            for match in PHRASES.finditer(text.lower())
        ]
    assert found == []


def test_only_the_families_name_a_family() -> None:
    name = re.compile("opt|t5|bert|llama|vicuna")
    found = [
        f"{shown(path)}:{node.lineno}"
        for path in files("blip2cli")
        if "families" not in path.parts
        for node in _nodes(path)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and name.fullmatch(node.value)
    ]
    assert found == []


def test_the_files_listed_as_slow_are_there() -> None:
    assert [name for name in sorted(SLOW_FILES) if not (ROOT / "tests" / name).is_file()] == []


@pytest.mark.parametrize("module", ["blip2cli", "blip2cli.cli.app"])
def test_libraries_are_imported_when_they_are_needed(module: str) -> None:
    script = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert HEAVY & set(done.stdout.split()) == set()


@cache
def _nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def _strings_and_comments(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string, docstring, piece of an f-string, and comment."""
    for node in _nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    yield from _comments(path)


def _remarks(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring and comment."""
    for node in _nodes(path):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring is not None:
                yield node.body[0].lineno, docstring
    yield from _comments(path)


def _comments(path: Path) -> Iterator[tuple[int, str]]:
    """By how they are written: a whole line, or after two spaces."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if found := COMMENT.search(line):
            yield number, found[0]


def _names(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of everything that is defined: modules, classes, functions, variables."""
    yield 1, path.stem
    for node in _nodes(path):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
