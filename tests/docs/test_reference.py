"""The pages of the reference that are made are what the program says of itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from blip2cli.options import GROUPS, declarations

SCRIPT = Path(__file__).parents[2] / "docs" / "make_reference.py"


def make_reference() -> ModuleType:
    found = importlib.util.spec_from_file_location("make_reference", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date() -> None:
    for path, page in make_reference().pages().items():
        assert path.read_text(encoding="utf-8") == page, "run make reference"


def test_every_declared_option_is_on_the_page() -> None:
    module = make_reference()
    page = module.pages()[module.FOLDER / "commands.md"]
    for group in GROUPS:
        for name, declared in declarations(group):
            if not declared.positional:
                assert f"`{declared.long_flag(name)}`" in page, (group.__name__, name)
