"""The command without a model: help, version, completion, mistakes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer.main

from blip2cli import __version__
from blip2cli.cli.app import COMMANDS, application, call
from tests.cli.helpers import error_sentence
from tests.command import COMMAND, Run, environment

LABELLING = ("caption", "ask", "embed")


def test_help_names_the_commands(blip2cli: Run) -> None:
    done = blip2cli("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for command in LABELLING:
        assert f" {command} " in done.stdout
    assert "blip2cli caption sample_images --model tiny" in done.stdout


def test_without_a_command_the_help_is_shown(blip2cli: Run) -> None:
    done = blip2cli()
    assert done.returncode == 2
    assert "Usage: blip2cli" in done.stdout


def test_version(blip2cli: Run) -> None:
    assert blip2cli("--version").stdout == f"blip2cli {__version__}\n"


def test_python_m_does_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "blip2cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"blip2cli {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["caption", "--help"], ["caption", "/none"]])
def test_nothing_heavy_is_imported_for_help_or_a_mistake(arguments: list[str]) -> None:
    code = (
        "import json, sys\n"
        "from blip2cli.cli.app import call\n"
        f"code = call({arguments!r})\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'numpy', 'PIL', 'huggingface_hub'}\n"
        "print()\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_list_of_commands_says_what_they_say_themselves() -> None:
    whole: Any = typer.main.get_command(application())
    listed: Any = typer.main.get_command(application(()))
    assert list(listed.commands) == list(whole.commands) == list(COMMANDS)
    for name, said in COMMANDS.items():
        assert " ".join(whole.commands[name].help.split("\n\n")[0].split()) == said
        assert listed.commands[name].help == said


def test_completion_knows_the_options_of_every_command(blip2cli: Run) -> None:
    asked = {"_BLIP2CLI_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "blip2cli ask --choi"}
    said = blip2cli(env=asked).stdout
    assert '"--choices":"The answers there are, separated by commas' in said
    assert "--choices-file" in said


def test_help_is_nearly_as_quick_as_importing_typer_and_rich(tmp_path: Path) -> None:
    bare = [sys.executable, "-c", "import typer, rich"]
    env = environment(tmp_path)

    def seconds(command: list[str]) -> float:
        """Processor time: unlike the clock, it hardly changes when the machine is busy."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=True, env=env)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    ours, theirs = [], []
    for _ in range(7):  # in turns; the quickest of each is the one least disturbed
        ours.append(seconds([str(COMMAND), "--help"]))
        theirs.append(seconds(bare))
    assert min(ours) <= 2 * min(theirs), (ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["captoin", "x"], "no command 'captoin'; did you mean caption?"),
        (["emebd", "x"], "did you mean embed?"),
        (
            ["frobnicate"],
            "no command 'frobnicate'; choose caption, ask, embed, convert, verify, eval, calibrate",
        ),
        (["."], "to caption it: blip2cli caption ."),
        (["--vresion"], "no option --vresion; did you mean --version?"),
        (["caption", ".", "--promt", "a"], "no option --promt; did you mean --prompt"),
        (["ask", ".", "--qestions", "a"], "did you mean --questions or --question?"),
        (["embed", ".", "--zzz"], "no option --zzz; blip2cli embed --help-all lists them."),
        (["caption", ".", "-z"], "There is no option -z"),
        (["embed", ".", "--kind", "qfomer"], "no value 'qfomer'; did you mean qformer?"),
        (
            ["embed", ".", "--kind", "zzz"],
            "projection, multimodal or language.",
        ),
        (["caption", ".", "--dtype", "float61"], "--dtype has no value 'float61'; did you mean"),
        (["caption", ".", "--errors", "inlin"], "did you mean inline?"),
        (["caption"], "No source was given; name a folder"),
        (["caption", ".", "--limit"], "'--limit' requires an argument"),
        (["caption", ".", "--limit", "0"], "--limit: input should be greater than or equal to 1"),
        (["caption", ".", "--batch-size", "x"], "--batch-size: give auto or a positive number"),
        (["caption", ".", "--batch-size", "0"], "--batch-size: give auto or a positive number"),
        (["caption", ".", "--quiet=1"], "'--quiet' does not take a value"),
        (["caption", ".", "-q", "-v"], "--quiet and --verbose contradict"),
        (["caption", ".", "-0"], "--null is about paths on stdin"),
        (["caption", ".", "--num-captions", "3"], "--num-beams 3"),
        (["caption", ".", "--num-captions", "3", "--num-beams", "2"], "--num-beams 3"),
        (["caption", ".", "--min-new-tokens", "9", "--max-new-tokens", "5"], "is more than"),
        (["caption", ".", "--temperature", "0"], "--temperature must be above 0"),
        (["caption", ".", "--top-p", "1.5"], "--top-p"),
        (["caption", ".", "--top-k", "0"], "--top-k"),
        (["caption", ".", "--top-k", "5", "--num-beams", "2"], "--num-beams"),
        (["caption", ".", "--length-penalty", "2"], "--num-beams"),
        (["ask", "."], "Nothing is asked"),
        (["ask", ".", "-q", "a?", "--questions", "q.txt"], "exclude each other"),
        (["ask", ".", "--questions", "q.txt"], "there is no such file"),
        (["ask", ".", "-q", "a?", "--template", "Q:"], "{question}"),
        (["embed", ".", "--kind", "projection", "--model", "tiny"], "no projection head"),
        (["embed"], "Nothing is embedded; give SOURCE"),
        (["embed", "--text", " "], "A text given with --text is empty"),
        (["embed", "--texts", "t.txt"], "no such file"),
        (["embed", ".", "--kind", "qformer", "--pool", "cls"], "does not fit"),
        (["caption", "none"], "There is no file or folder 'none'"),
        (["caption", "."], "."),
        (["caption", ".", "-o", "out.xyz"], "unknown suffix '.xyz'"),
        (["caption", ".", "-o", "none/out.jsonl"], "does not exist"),
        (["caption", ".", "--summary", "none/s.json"], "--summary"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_mend(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = call(arguments)
    out, err = capfd.readouterr()
    assert said in error_sentence(subprocess.CompletedProcess(arguments, code, out, err))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["captoin", "x"], "did you mean caption?"),
        (["caption", ".", "--promt", "a"], "did you mean --prompt"),
        (["caption", "."], "."),
        (["caption", ".", "-o", "out.xyz"], "unknown suffix"),
    ],
)
def test_a_mistake_is_answered_at_once(arguments: list[str], said: str, blip2cli: Run) -> None:
    began = time.perf_counter()
    assert said in error_sentence(blip2cli(*arguments))
    assert time.perf_counter() - began < 5  # on a busy machine; no model was loaded


def test_a_mistake_in_a_variable_names_it(blip2cli: Run) -> None:
    done = blip2cli("caption", ".", env={"BLIP2CLI_BATCH_SIZE": "many"})
    assert "--batch-size (or BLIP2CLI_BATCH_SIZE)" in error_sentence(done)


def test_completion_can_be_shown(tmp_path: Path) -> None:
    """It is for the shell that started the command."""
    done = subprocess.run(
        ["bash", "-c", f"{COMMAND} --show-completion; exit $?"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "_BLIP2CLI_COMPLETE" in done.stdout
    assert done.returncode == 0


def test_errors_are_red_only_where_colour_is_wanted(blip2cli: Run) -> None:
    red = "\x1b[31mblip2cli:\x1b[0m "
    assert not blip2cli("caption", "none").stderr.startswith(red)
    assert blip2cli("caption", "none", env={"FORCE_COLOR": "1"}).stderr.startswith(red)
    both = blip2cli("caption", "none", env={"FORCE_COLOR": "1", "NO_COLOR": "1"})
    assert not both.stderr.startswith(red)
