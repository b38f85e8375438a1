"""The pages of the reference that are made are what the program says of itself."""

from __future__ import annotations

from blip2cli.options import GROUPS, declarations
from tests.docs.scripts import load_script


def test_the_pages_are_up_to_date() -> None:
    for path, page in load_script("make_reference").pages().items():
        assert path.read_text(encoding="utf-8") == page, "run make reference"


def test_every_declared_option_is_on_the_page() -> None:
    module = load_script("make_reference")
    page = module.pages()[module.FOLDER / "commands.md"]
    for group in GROUPS:
        for name, declared in declarations(group):
            if not declared.positional:
                assert f"`{declared.long_flag(name)}`" in page, (group.__name__, name)
