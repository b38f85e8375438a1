"""Options end up where they belong, from the command line and from the environment."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import typer

from blip2cli.cli import app as application
from blip2cli.cli.app import call
from blip2cli.cli.flags.command import command as as_command
from blip2cli.errors import OptionError
from blip2cli.options import (
    GROUPS,
    DecodeOptions,
    EmbedOptions,
    LoaderOptions,
    ModelOptions,
    OptionGroup,
    OutputOptions,
    SourceOptions,
    declarations,
)
from blip2cli.options.declare import PANELS, declare, setting
from blip2cli.options.values import parse_duration, parse_error_limit
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.embed_texts import EmbedTextsTask
from blip2cli.tasks.texts import Texts

Caught = list[Any]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Caught:
    """What commands would have run: task, run options, report options and items of each."""
    caught: Caught = []

    def keep(job: Any, report: Any, evaluate: Any = None, write_page: Any = None) -> int:
        caught.append((job.task, job.options, report, job.items))
        return 0

    monkeypatch.setattr("blip2cli.cli.run_command.run_command", keep)
    return caught


def test_defaults_are_the_defaults_of_the_option_objects(built: Caught) -> None:
    assert call(["caption", "x"]) == 0
    task, options, report, _ = built[0]
    assert task.decode == DecodeOptions()
    assert options.source == SourceOptions(("x",))
    assert options.model == ModelOptions()
    assert options.output == OutputOptions()
    assert (report.dry_run, report.verbose, report.quiet) == (False, 0, False)


@pytest.mark.parametrize("arguments", [[], ["--batch-size", "auto"]])
def test_the_batch_size_is_left_open(arguments: list[str], built: Caught) -> None:
    assert call(["caption", "x", *arguments]) == 0
    assert built[0][1].loader == LoaderOptions(batch_size=None)


VALUES = {
    "--revision": ("v1", "model.revision", "v1"),
    "--model": ("m", "model.model", "m"),
    "--device": ("cuda:1", "model.device", "cuda:1"),
    "--dtype": ("bfloat16", "model.dtype", "bfloat16"),
    "--quantize": ("int8", "model.quantize", "int8"),
    "--compile": (None, "model.compile", True),
    "--batch-size": ("4", "loader.batch_size", 4),
    "--workers": ("0", "loader.workers", 0),
    "--image-timeout": ("2.5", "loader.image_timeout", 2.5),
    "--fast-decode": (None, "loader.fast_decode", True),
    "--limit": ("7", "source.limit", 7),
    "--image-column": ("photo", "source.image_column", "photo"),
    "--absolute-paths": (None, "source.absolute_paths", True),
    "--overwrite": (None, "output.overwrite", True),
    "--resume": (None, "output.resume", True),
    "--retry-errors": (None, "output.retry_errors", True),
    "--max-errors": ("5%", "limits.max_errors", 0.05),
    "--max-duration": ("1h30m", "limits.max_duration", 5400.0),
    "--log-json": (None, "report.log_json", True),
    "--output": ("o.jsonl", "output.out", "o.jsonl"),
    "--errors": ("inline", "output.errors", "inline"),
    "--summary": ("s.json", "output.summary", "s.json"),
    "--max-new-tokens": ("9", "decode.max_new_tokens", 9),
    "--min-new-tokens": ("2", "decode.min_new_tokens", 2),
    "--num-beams": ("4", "decode.num_beams", 4),
    "--temperature": ("0.5", "decode.temperature", 0.5),
    "--top-p": ("0.9", "decode.top_p", 0.9),
    "--top-k": ("5", "decode.top_k", 5),
    "--repetition-penalty": ("1.5", "decode.repetition_penalty", 1.5),
    "--no-repeat-ngram-size": ("3", "decode.no_repeat_ngram_size", 3),
    "--retry-degenerate": (None, "decode.retry_degenerate", True),
    "--seed": ("11", "decode.seed", 11),
    "--prompt": ("a photo of", "task.prompt", "a photo of"),
    "--dry-run": (None, "report.dry_run", True),
    "--verbose": (None, "report.verbose", 1),
    "--quiet": (None, "report.quiet", True),
}


def look(path: str, found: Any) -> Any:
    task, options, report, _ = found
    first, _, rest = path.partition(".")
    if first == "decode":
        return getattr(task.decode, rest)
    if first in ("task", "report"):
        return getattr(task.options if first == "task" else report, rest)
    return getattr(getattr(options, first), rest)


@pytest.mark.parametrize("option", VALUES)
def test_an_option_and_its_variable_mean_the_same(
    option: str, built: Caught, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, path, expected = VALUES[option]
    assert call(["caption", "x", option, *([] if value is None else [value])]) == 0
    monkeypatch.setenv("BLIP2CLI_" + option[2:].replace("-", "_").upper(), value or "1")
    assert call(["caption", "x"]) == 0
    assert [look(path, found) for found in built] == [expected, expected]


def test_retrying_goes_on_with_what_is_there(built: Caught) -> None:
    assert call(["caption", "x", "--retry-errors"]) == 0
    assert built[0][1].output.resumes


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d2h3m4s", 93784), ("0.5", 0.5)],
)
def test_times_are_read_as_people_write_them(text: str, value: float) -> None:
    assert parse_duration(text) == value


def test_numbers_of_errors_and_shares_are_told_apart() -> None:
    assert [parse_error_limit(text) for text in ("0", "10", "5%", "2.5%", "100%")] == [
        0,
        10,
        0.05,
        0.025,
        1.0,
    ]
    assert isinstance(parse_error_limit("1"), int)


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("--max-duration", "soon"),
        ("--max-duration", "0"),
        ("--max-duration", "1h 5"),
        ("--max-errors", "-1"),
        ("--max-errors", "101%"),
        ("--max-errors", "few"),
    ],
)
def test_limits_that_cannot_be_read_are_refused(
    option: str, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["caption", "x", option, wrong]) == 2
    assert option in capsys.readouterr().err
    with pytest.raises(OptionError, match=option[2:].replace("-", "_")):
        parse_duration(wrong) if option == "--max-duration" else parse_error_limit(wrong)


def test_length_penalty_and_candidates_need_beams(built: Caught) -> None:
    assert (
        call(["caption", "x", "--num-beams", "5", "--length-penalty", "-1", "--num-captions", "2"])
        == 0
    )
    assert built[0][0].decode == DecodeOptions(num_beams=5, length_penalty=-1.0, num_captions=2)


def test_repeatable_options_take_lines_of_their_variables(
    built: Caught, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLIP2CLI_INCLUDE", "*.png\nholiday 2024/*\n")
    monkeypatch.setenv("BLIP2CLI_EXCLUDE", "x*")
    monkeypatch.setenv("BLIP2CLI_KEEP", "id\nprice in €")
    monkeypatch.setenv("BLIP2CLI_QUESTION", "is it red?\nwhat is it?")
    assert call(["ask", "x", "--exclude", "a b*", "--exclude", "c"]) == 0
    task, options, *_ = built[0]
    assert options.source.include == ("*.png", "holiday 2024/*")
    assert options.source.exclude == ("a b*", "c")
    assert options.source.keep == ("id", "price in €")
    assert [question.text for question in task.questions.common] == ["is it red?", "what is it?"]


def test_choices_come_from_the_command_line_or_a_file(
    built: Caught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.txt"
    file.write_text("red, or so\nblue\n")
    assert call(["ask", "x", "-q", "a?", "--choices", "yes, no", "--choice-norm", "mean"]) == 0
    assert call(["ask", "x", "--choices-file", str(file), "--match"]) == 0
    monkeypatch.setenv("BLIP2CLI_CHOICES", "1,2")
    assert call(["ask", "x", "-q", "a?"]) == 0
    tasks = [task for task, *_ in built]
    assert [task.choices for task in tasks] == [("yes", "no"), ("red, or so", "blue"), ("1", "2")]
    assert [(task.options.choice_norm, task.options.match) for task in tasks[:2]] == [
        ("mean", False),
        (None, True),
    ]


def test_options_of_vectors(built: Caught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "t.txt"
    file.write_text("a cat\na dog\n")
    assert call(["embed", "x"]) == 0
    assert call(["embed", "x", "--kind", "multimodal", "--pool", "none", "--text", "a, b"]) == 0
    assert call(["embed", "--texts", str(file), "--kind", "qformer", "--normalize"]) == 0
    monkeypatch.setenv("BLIP2CLI_TEXT", "a cat\na dog, asleep")
    monkeypatch.setenv("BLIP2CLI_NORMALIZE", "1")
    monkeypatch.setenv("BLIP2CLI_EMBEDDING_DTYPE", "float16")
    assert call(["embed"]) == 0
    tasks = [task for task, *_ in built]
    assert tasks == [
        EmbedTask(),
        EmbedTask(EmbedOptions("multimodal", "none", ("a, b",)), Texts(("a, b",))),
        EmbedTextsTask(EmbedOptions("qformer", texts=str(file), normalize=True)),
        EmbedTextsTask(
            EmbedOptions(
                text=("a cat", "a dog, asleep"), normalize=True, embedding_dtype="float16"
            ),
        ),
    ]
    assert [options.source.sources for _, options, *_ in built] == [("x",), ("x",), (), ()]
    assert [items.texts for *_, items in built[2:]] == [
        Texts(("a cat", "a dog"), str(file)),
        Texts(("a cat", "a dog, asleep")),
    ]


def test_q_is_a_question_in_ask_and_quiet_elsewhere(built: Caught) -> None:
    assert call(["ask", "x", "-q", "one?", "-q", "two?", "--quiet"]) == 0
    assert call(["embed", "x", "-q"]) == 0
    assert [question.text for question in built[0][0].questions.common] == ["one?", "two?"]
    assert built[0][2].quiet
    assert built[1][2].quiet


def test_a_time_limit_without_workers_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["caption", "x", "--workers", "0", "--image-timeout", "5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--image-timeout needs worker processes" in line
    assert "--workers 1" in line


# Commands whose output is no file of rows.
PRODUCTS = ("report", "calibrate")


def test_the_same_flag_means_the_same_everywhere() -> None:
    seen: dict[str, tuple[str, Any]] = {}
    group = typer.main.get_command(application.application())
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            for flag in parameter.opts:
                if flag == "-q" or not flag.startswith("-"):
                    continue
                if (name, flag) == ("doctor", "--model"):
                    continue  # without a model it looks at the installation, and says so
                if flag in ("--output", "-o") and name in PRODUCTS:
                    continue
                kept = seen.setdefault(flag, (parameter.help, parameter.default))
                assert kept == (parameter.help, parameter.default), (name, flag)


def test_a_group_of_options_becomes_single_parameters() -> None:
    got: list[object] = []

    @dataclasses.dataclass(frozen=True)
    class Pair(OptionGroup):
        left: int = setting(1, help="One.", panel="Model")
        right: tuple[str, ...] = setting((), help="Several.", panel="Model")

    globals()["Pair"] = Pair  # annotations are looked up by name, as in any module

    def command(pair: Pair) -> int:
        got.append(pair)
        return 5

    small = typer.Typer(add_completion=False)
    small.command()(as_command(command))
    run = typer.main.get_command(small)
    arguments = ["--left", "3", "--right", "a", "--right", "b"]
    assert run.main(arguments, standalone_mode=False) == 5
    assert got == [Pair(3, ("a", "b"))]


def test_an_option_that_is_not_declared_cannot_be_forgotten() -> None:
    with pytest.raises(TypeError, match=r"Careless\.plain has no declaration"):

        class Careless(OptionGroup):
            plain: int = 1

    with pytest.raises(TypeError, match="shapes_rows"):
        declare(1, help="Half declared.", panel="Model", about_images=False)  # type: ignore[call-arg]


def test_every_option_has_a_heading_and_a_help_text() -> None:
    for group in GROUPS:
        for name, declared in declarations(group):
            assert declared.panel in PANELS, name
            assert declared.help.endswith((".", "]")), name
            assert isinstance(declared.brief, bool) or declared.brief.endswith("."), name
