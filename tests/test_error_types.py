"""The table of failures in the reference is the whole truth about their names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import blip2cli
from tests.torture.corpora import documented

PACKAGE = Path(blip2cli.__file__).parent
# Where the name stands among the arguments, and the value if it is left out.
RAISERS = {"ImageError": (0, None), "FailedRef": (2, "read_error")}


def names(tree: ast.Module) -> Iterator[str]:
    """Every name that is written where a failure's type belongs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            place, default = RAISERS.get(node.func.id, (-1, None))
            given = [word.value for word in node.keywords if word.arg == "error_type"]
            if 0 <= place < len(node.args):
                given.append(node.args[place])
            for value in given:
                for part in ast.walk(value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value
            if place >= 0 and not given and default:
                yield default


def raised() -> set[str]:
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        found.update(names(ast.parse(path.read_text(encoding="utf-8"))))
    return found


def test_the_page_lists_every_name_and_no_other() -> None:
    assert raised() == documented()


def test_names_are_found_wherever_they_stand() -> None:
    code = """
raise ImageError("one", "…")
FailedRef(name, path, "two" if broken else "three", "…")
FailedRef(name, path, error_type="four")
FailedRef(name, path)
ImageError(error.error_type, "none")
Other("five")
"""
    assert set(names(ast.parse(code))) == {"one", "two", "three", "four", "read_error"}
