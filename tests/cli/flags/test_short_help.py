"""The help of each command on one screen, and the long one behind it."""

from __future__ import annotations

import importlib
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer.main

from blip2cli.cli import app
from blip2cli.cli.app import COMMANDS, application, call
from tests.command import is_embedded
from tests.docs.material import CAPTIONS, SAMPLES

WHOLE: Any = typer.main.get_command(application())
LINES, COLUMNS = 40, 80
SHOWN = ("cats.png", "harbor.webp", "party.jpg")


def examples(name: str) -> tuple[str, ...]:
    found: tuple[str, ...] = importlib.import_module(f"blip2cli.cli.{name}").EXAMPLES
    return found


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_explained_on_one_screen(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Usage: blip2cli {name} ")
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    *shown, gap = lines[lines.index("Examples") + 1 :][: len(examples(name)) + 1]
    assert [line.strip() for line in shown] == [*examples(name)]
    assert 2 <= len(shown) <= 3
    assert gap == ""
    assert lines[-1].startswith(f"blip2cli {name} --help-all shows all ")
    assert lines[-2] == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_short_help_lists_what_is_declared_as_brief(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call([name, "-h"])
    words = capsys.readouterr().out.partition("\nExamples\n")[0].replace(",", " ").split()
    command = WHOLE.commands[name]
    for parameter in command.params:
        known = command.callback.options.get(parameter.name)
        flag = max(parameter.opts, key=len)
        if flag.startswith("-") and known is not None:
            assert (flag in words) == bool(known.declared.brief), flag


@pytest.mark.parametrize("name", COMMANDS)
def test_the_long_help_has_every_option_in_its_panel(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert call([name, "--help-all"]) == 0
    text = capsys.readouterr().out
    for parameter in WHOLE.commands[name].params:
        for flag in (*parameter.opts, *parameter.secondary_opts):
            if flag.startswith("--"):
                assert f" {flag}" in text or f",{flag}" in text
                assert f"─ {parameter.rich_help_panel or 'Options'} ─" in text
                variable = f"BLIP2CLI_{flag[2:].replace('-', '_').upper()}"
                assert variable in text or flag in ("--help-all", *parameter.secondary_opts)
    assert "Examples" in text


def test_the_program_is_explained_on_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= LINES
    assert max(map(len, text.splitlines())) <= COLUMNS
    for name, summary in COMMANDS.items():
        assert f"  {name} " in text
        assert " ".join(summary.split()[:4]) in text
    assert "--help-all" in text
    assert call(["--help-all"]) == 0
    assert "─ Commands ─" in capsys.readouterr().out


def test_defaults_and_values_stand_in_the_short_help(capsys: pytest.CaptureFixture[str]) -> None:
    call(["embed", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--kind KIND image, qformer, projection, multimodal, language." in text
    assert "[default: Salesforce/blip2-opt-2.7b]" in text


def lay_out(folder: Path) -> None:
    """What the examples work on."""
    (folder / "sample_images").symlink_to(SAMPLES)
    (folder / "photos").mkdir()
    names = {f"{number}-{name}": name for number in range(17) for name in SHOWN}
    for name, original in names.items():
        shutil.copy(SAMPLES / original, folder / "photos" / name)
    captions = "\n".join(f'{name},"{CAPTIONS[original]}"' for name, original in names.items())
    (folder / "labels.csv").write_text(f"file_name,caption\n{captions}\n")
    answers = "\n".join(f"{n},is there a cat?,{'yes' if 'cat' in n else 'no'}" for n in names)
    (folder / "cats.csv").write_text(f"file_name,question,answer\n{answers}\n")
    (folder / "questions.csv").write_text(f"file_name,question,answer\n{answers}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_are_commands_with_options_of_theirs(name: str) -> None:
    for example in examples(name):
        program, first, *words = shlex.split(example)
        assert (program, first) == ("blip2cli", name)
        with WHOLE.commands[name].make_context(name, words) as context:
            assert all(
                context.params[each.name] for each in context.command.params if each.required
            )


@pytest.mark.external
@pytest.mark.skipif(not is_embedded("tiny-itm"), reason="this installation has no tiny-itm")
def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    for example in app.EXAMPLES + tuple(one for name in COMMANDS for one in examples(name)):
        words = shlex.split(example)
        assert words[0] == "blip2cli"
        if words[1] == "doctor":
            monkeypatch.delenv("BLIP2CLI_MODEL", raising=False)
        else:
            monkeypatch.setenv("BLIP2CLI_MODEL", "tiny")
        code = call(words[1:])
        assert code == 0, (example, capfd.readouterr())
