"""The examples of the Python API, in its docstrings and on its page, give what they say."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from types import ModuleType

import pytest

from blip2cli.api import blip2, rows

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "python.md"
EXAMPLES = re.compile(r"```python\n(>>> .*?)```", re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("module", [blip2, rows], ids=["blip2", "rows"])
def test_docstrings(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    results = doctest.testmod(module, optionflags=FLAGS)
    assert results.attempted
    assert not results.failed


def test_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = "\n".join(EXAMPLES.findall(PAGE.read_text(encoding="utf-8")))
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    results = doctest.DocTestRunner(optionflags=FLAGS).run(test)
    assert results.attempted > 10
    assert not results.failed
