"""``--config`` and ``--job``: options from a file, below the command line and the environment."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from blip2cli.cli.app import call
from blip2cli.options import DecodeOptions

FILE = """
model = "tiny"
num-beams = 3
max_new_tokens = 9
batch-size = 4
max-errors = "5%"
template = "Q: {question}"
keep = ["alt", "price in €"]

[jobs.nightly]
command = "caption"
source = "photos"
output = "out.jsonl"
prompt = "a photo of"
max_new_tokens = 12
exclude = "*.gif"
resume = true
max_duration = "6h"

[jobs.ask-dogs]
question = ["is there a dog?", "what, is it?"]
sources = ["a", "b"]
temperature = 1
num_beams = 1
"""


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What commands would have run: the task and the options of each."""
    caught: list[Any] = []

    def keep(job: Any, report: Any, evaluate: Any = None, write_page: Any = None) -> int:
        caught.append((job.task, job.options))
        return 0

    monkeypatch.setattr("blip2cli.cli.run_command.run_command", keep)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(FILE)
    indented = FILE.replace("[jobs.", "[tool.blip2cli.jobs.")
    (tmp_path / "pyproject.toml").write_text(f"[tool.blip2cli]\n{indented}\n[tool.ruff]\nx = 1\n")
    return caught


@pytest.mark.parametrize("file", ["job.toml", "pyproject.toml"])
def test_a_file_gives_defaults(built: list[Any], file: str) -> None:
    assert call(["caption", "x", "--config", file]) == 0
    task, options = built[0]
    assert task.decode == DecodeOptions(num_beams=3, max_new_tokens=9)
    assert (options.model.model, options.loader.batch_size) == ("tiny", 4)
    assert (options.limits.max_errors, options.source.keep) == (0.05, ("alt", "price in €"))
    assert options.source.sources == ("x",)


def test_a_job_wins_over_the_top_of_the_file(built: list[Any]) -> None:
    assert call(["caption", "--config", "job.toml", "--job", "nightly"]) == 0
    assert call(["ask", "--job", "ask-dogs", "--config", "job.toml"]) == 0
    (task, options), (asked, others) = built
    assert (task.options.prompt, task.decode.max_new_tokens) == ("a photo of", 12)
    assert (options.source.sources, options.source.exclude) == (("photos",), ("*.gif",))
    assert (options.output.out, options.output.resume) == ("out.jsonl", True)
    assert options.limits.max_duration == 6 * 3600
    texts = [question.text for question in asked.questions.common]
    assert texts == ["is there a dog?", "what, is it?"]
    assert (asked.options.template, asked.decode.temperature) == ("Q: {question}", 1.0)
    assert others.source.sources == ("a", "b")


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    built: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLIP2CLI_CONFIG", "job.toml")
    monkeypatch.setenv("BLIP2CLI_NUM_BEAMS", "4")
    monkeypatch.setenv("BLIP2CLI_MAX_NEW_TOKENS", "7")
    monkeypatch.setenv("BLIP2CLI_KEEP", "one\ntwo")
    assert call(["caption", "x", "--max-new-tokens", "5"]) == 0
    assert call(["caption", "x", "--keep", "three"]) == 0
    (task, options), (_, others) = built
    assert (task.decode.num_beams, task.decode.max_new_tokens) == (4, 5)
    assert (options.source.keep, others.source.keep) == (("one", "two"), ("three",))


@pytest.mark.parametrize("words", ["--preset paper-caption", ""])
def test_a_file_wins_over_a_preset(built: list[Any], words: str, tmp_path: Path) -> None:
    preset = "" if words else 'preset = "paper-caption"\n'
    (tmp_path / "p.toml").write_text(f"{preset}num_beams = 2\n")
    assert call(["caption", "x", *words.split(), "--config", "p.toml"]) == 0
    assert call(["caption", "x", "--config", "p.toml", *words.split()]) == 0
    for task, _ in built:
        assert task.decode == DecodeOptions(num_beams=2, min_new_tokens=8, max_new_tokens=30)
        assert task.options.prompt == "a photo of"


def test_a_dry_run_says_where_values_come_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    images: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLIP2CLI_NUM_BEAMS", "2")
    text = f'model = "tiny"\n[jobs.a]\nsource = ["{images}"]\nmax_new_tokens = 9\nnum_beams = 9\n'
    (tmp_path / "job.toml").write_text(text)
    words = "caption --config job.toml --job a --dry-run --limit 1 --preset paper-caption"
    assert call(words.split()) == 0
    printed = capfd.readouterr().out.partition("settings:\n")[2].splitlines()
    assert printed == [
        "  --config: job.toml (command line)",
        "  --job: a (command line)",
        f"  SOURCE: {images} (job.toml, job a)",
        "  --limit: 1 (command line)",
        "  --model: tiny (job.toml)",
        "  --prompt: a photo of (preset)",
        "  --preset: paper-caption (command line)",
        "  --max-new-tokens: 9 (job.toml, job a)",
        "  --min-new-tokens: 8 (preset)",
        "  --num-beams: 2 (environment)",
        "  --dry-run: True (command line)",
    ]


@pytest.mark.parametrize(
    ("text", "words", "sentence"),
    [
        ("num_beems = 2", "", "'job.toml': there is no option num_beems; did you mean num_beams?"),
        ("[jobs.a]\npromt = 'x'", "", "'job.toml, job a': there is no option promt; did you mean"),
        ("xyzzy = 1", "", "there is no option xyzzy; the help of each command lists"),
        ("config = 'x'", "", "there is no option config"),
        ("num_beams = 'two'", "", "num_beams is 'two', not a whole number"),
        ("num_beams = true", "", "num_beams is True, not a whole number"),
        ("num_beams = 0", "", "num_beams must be at least 1, not 0"),
        ("temperature = 'x'", "", "temperature is 'x', not a number"),
        ("resume = 1", "", "resume is 1, not true or false"),
        ("keep = [1979-05-27]", "", "not a text; write it in quotes"),
        ("dtype = 'float23'", "", "dtype has no value 'float23'; did you mean float32?"),
        ("max_duration = 'soon'", "", "max_duration: --max-duration 'soon' is no time; write 90s"),
        ("model = ", "", "--config 'job.toml' is no TOML ("),
        ("jobs = 1", "", "jobs holds no tables"),
        ("[jobs.nightly]", "--job nighly", "has no job 'nighly'; did you mean nightly?"),
        ("", "--job a", "has no job 'a'; it has none"),
        ("[jobs.a]\ncommand = 'ask'", "--job a", "is a job for blip2cli ask; it is blip2cli capt"),
        ("[jobs.a]\ntemplate = 'x'", "--job a", "blip2cli caption has no option template"),
    ],
)
def test_what_is_wrong_in_a_file(
    text: str, words: str, sentence: str, built: list[Any], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "job.toml").write_text(text)
    assert call(shlex.split(f"caption x --config job.toml {words}")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert built == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--config none.toml", "--config 'none.toml' cannot be read (No such file"),
        ("--config other/pyproject.toml", "has no table tool.blip2cli"),
        ("--job a", "--job names a job of the file --config; give that, too"),
    ],
)
def test_a_file_that_is_not_there(
    words: str, sentence: str, built: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert call(["caption", "x", *words.split()]) == 2
    assert sentence in capsys.readouterr().err


def test_no_file_is_read_that_is_not_named(built: list[Any]) -> None:
    assert call(["caption", "x"]) == 0
    assert built[0][0].decode == DecodeOptions()
