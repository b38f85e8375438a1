"""The reference of the Python API has every method, with the parameters that it has."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from blip2cli import Blip2

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "python.md").read_text("utf-8")


def signature(name: str) -> str:
    """``embed(images, kind="image", …)``, without types."""
    (_, *parameters) = inspect.signature(getattr(Blip2, name)).parameters.values()
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in parameters]
    return name + str(inspect.Signature(bare)).replace("'", '"')


def test_every_method_has_its_parameters() -> None:
    public = [n for n, each in vars(Blip2).items() if n[0] != "_" and inspect.isfunction(each)]
    assert public
    assert [signature(name) for name in public if f"## `{signature(name)}`" not in PAGE] == []


def test_every_parameter_of_load_is_explained() -> None:
    named = re.findall(r"`(\w+)`", PAGE.split("## `Blip2.load")[1].split("\n## ")[0])
    assert set(inspect.signature(Blip2.load).parameters) <= set(named)
