"""``--preset``: the paper's settings as defaults, which anything said beside them overrules."""

from __future__ import annotations

from typing import Any

import pytest

from blip2cli.cli.app import call
from blip2cli.options import DecodeOptions

VQA = DecodeOptions(num_beams=5, length_penalty=-1.0, max_new_tokens=10)
CAPTION = DecodeOptions(num_beams=5, min_new_tokens=8, max_new_tokens=30)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The tasks that commands would have run, one after the other."""
    caught: list[Any] = []

    def keep(job: Any, report: Any, evaluate: Any = None, write_page: Any = None) -> int:
        caught.append(job.task)
        return 0

    monkeypatch.setattr("blip2cli.cli.run_command.run_command", keep)
    return caught


def test_answers_are_decoded_as_in_the_paper(built: list[Any]) -> None:
    assert call(["ask", "x", "-q", "why?", "--preset", "paper-vqa"]) == 0
    assert built[0].decode == VQA
    assert built[0].options.template == "auto"  # the paper's, by the language model's family


def test_captions_are_decoded_as_in_the_paper(built: list[Any]) -> None:
    assert call(["caption", "x", "--preset", "paper-caption"]) == 0
    assert built[0].decode == CAPTION
    assert built[0].options.prompt == "a photo of"


@pytest.mark.parametrize("where", ["before", "after", "environment"])
def test_what_is_said_beside_a_preset_wins(
    built: list[Any], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    preset = ["--preset", "paper-caption"]
    # 1 beam and 20 tokens are the values nothing said would have without a preset as well, or near.
    said = ["--num-beams", "1", "--max-new-tokens", "20", "--prompt", "this is"]
    if where == "environment":
        monkeypatch.setenv("BLIP2CLI_NUM_BEAMS", "1")
        monkeypatch.setenv("BLIP2CLI_MAX_NEW_TOKENS", "20")
        monkeypatch.setenv("BLIP2CLI_PROMPT", "this is")
        said = []
    words = [*said, *preset] if where == "before" else [*preset, *said]
    assert call(["caption", "x", *words]) == 0
    assert built[0].decode == DecodeOptions(min_new_tokens=8, max_new_tokens=20)
    assert built[0].options.prompt == "this is"


def test_a_preset_is_over_with_its_command(built: list[Any]) -> None:
    call(["ask", "x", "-q", "why?", "--preset", "paper-vqa"])
    call(["ask", "x", "-q", "why?"])
    assert built[1].decode == DecodeOptions()


def test_a_preset_can_come_from_the_environment(
    built: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLIP2CLI_PRESET", "paper-vqa")
    assert call(["ask", "x", "-q", "why?", "--num-beams", "3"]) == 0
    assert built[0].decode == DecodeOptions(num_beams=3, length_penalty=-1.0, max_new_tokens=10)


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (["caption", "x", "--preset", "paper-vqa"], "paper-caption"),
        (["ask", "x", "-q", "why?", "--preset", "paper-caption"], "paper-vqa"),
    ],
)
def test_a_preset_of_another_command_is_refused_by_name(
    words: list[str], known: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(words) == 2
    assert known in capsys.readouterr().err
