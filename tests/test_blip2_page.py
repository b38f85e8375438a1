"""The page about transformers names tests and commands that exist, and all that it offers."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from blip2cli.cli.app import application, call

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reference" / "transformers.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"`([^`]+)`", PAGE)
COMMANDS = sorted({text for text in QUOTED if text.startswith("blip2cli ")})
TESTS = sorted({text for text in QUOTED if text.startswith("tests/")})
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| transformers |"))
]


@cache
def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("test", TESTS)
def test_a_named_test_exists(test: str) -> None:
    file, name = test.split("::")
    assert name.startswith("test_")
    assert name in functions(file)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_can_be_given(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple[Any, Any]] = []

    def keep(job: Any, report: Any, evaluate: Any = None, write_page: Any = None) -> int:
        built.append((job.task, job.options))
        return 0

    monkeypatch.setattr("blip2cli.cli.run_command.run_command", keep)
    words = shlex.split(command.removeprefix("blip2cli "))
    if words[0] == "convert":  # it looks at its files at once; what can be held is its options
        group: Any = typer.main.get_command(application())
        assert group.commands["convert"].make_context("convert", words[1:]).params["destination"]
        return
    assert call(words) == 0
    ((task, options),) = built
    assert task.name == words[0]
    if "--model" in words:
        assert options.model.model == words[words.index("--model") + 1]


def test_every_row_has_its_proof() -> None:
    assert len(ROWS) > 20
    for item, here, *proof in ROWS:
        assert len(proof) == 1, item
        if not here.startswith(("none", "not yet")):
            assert "::test_" in proof[0], item


def test_every_class_of_transformers_is_there() -> None:
    from transformers.models.blip_2 import (
        configuration_blip_2,
        modeling_blip_2,
        processing_blip_2,
    )

    modules = (configuration_blip_2, modeling_blip_2, processing_blip_2)
    names = {name for module in modules for name in module.__all__}
    names.remove("Blip2PreTrainedModel")  # the base of the others
    assert {name for name in names if name not in PAGE} == set()
    methods = {name for name in vars(modeling_blip_2.Blip2Model) if name.startswith("get_")}
    shared = {"get_encoder", "get_output_embeddings", "get_placeholder_mask"}
    for name in methods - shared:
        assert f"Blip2Model.{name}" in PAGE
    for name in re.findall(r"\bBlip2[A-Z]\w+", PAGE):
        assert name in names


def test_every_class_of_instructblip_is_there() -> None:
    from transformers.models.instructblip import (
        configuration_instructblip,
        modeling_instructblip,
        processing_instructblip,
    )

    modules = (configuration_instructblip, modeling_instructblip, processing_instructblip)
    names = {name for module in modules for name in module.__all__}
    names.remove("InstructBlipPreTrainedModel")  # the base of the others
    assert {name for name in names if name not in PAGE} == set()
