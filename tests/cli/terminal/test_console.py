from __future__ import annotations

import dataclasses
import io
import re

import pytest

from blip2cli.cli.terminal.console import Console
from blip2cli.model.checkpoint.embedded import EMBEDDED
from blip2cli.pipeline.events import (
    Failed,
    Finished,
    Halved,
    ModelReady,
    Progress,
    Slower,
    Started,
    Waiting,
)
from tests.cli.terminal.summaries import SUMMARY


def talk(*, quiet: bool = False, verbosity: int = 0, model: str = "tiny") -> str:
    stream = io.StringIO()
    console = Console(stream, quiet=quiet, verbosity=verbosity, list_failures=False)
    console(Started("ask", model, 12))
    console(ModelReady(model, "cpu", "float32", "why not", 2.0))
    console(Failed("a.png", "truncated", "It ends too early."))
    console(Progress(1, 1, 12))
    console(Finished(SUMMARY))
    return stream.getvalue()


def test_away_from_a_terminal_there_is_no_bar() -> None:
    said = talk().splitlines()
    assert len(said) == 2
    assert said[0].startswith("Note: tiny is a demonstration")
    assert "--model Salesforce/blip2-opt-2.7b" in said[0]
    assert said[1].startswith("10 images answered")
    assert len(talk(model="other").splitlines()) == 1


@pytest.mark.parametrize("model", EMBEDDED)
def test_every_embedded_model_says_what_it_is_and_names_a_real_one(model: str) -> None:
    said = talk(model=model).splitlines()[0]
    assert said.startswith(f"Note: {model} is a demonstration")
    assert "--model Salesforce/" in said


def test_verbose_adds_the_device_and_the_failures() -> None:
    said = talk(verbosity=1)
    assert "tiny on cpu in float32: why not (loaded in 2.0 s)" in said
    assert "a.png: truncated: It ends too early." in said


def test_verbose_says_where_the_seconds_of_the_start_went() -> None:
    summary = dataclasses.replace(
        SUMMARY,
        seconds=12.0,
        load_seconds=2.0,
        list_seconds=0.25,
        import_seconds=1.5,
        first_seconds=3.0,
    )
    line = (
        "Start: 0.25 s listing, 1.50 s importing, 0.25 s loading; first rows after 3.00 s, "
        "all after 12.00 s.\n"
    )
    for verbosity, said in ((0, False), (1, True)):
        stream = io.StringIO()
        console = Console(stream, quiet=False, verbosity=verbosity, list_failures=False)
        console(Finished(summary))
        assert (line in stream.getvalue()) is said


def test_smaller_batches_are_announced() -> None:
    stream = io.StringIO()
    console = Console(stream, quiet=False, verbosity=0, list_failures=False)
    console(Halved(8))
    console(Halved(1))
    assert stream.getvalue() == (
        "Out of memory: going on with batches of 8 images.\n"
        "Out of memory: going on with batches of 1 image.\n"
    )


@pytest.mark.parametrize("quiet", [False, True])
def test_what_a_run_waits_for_is_a_line(quiet: bool) -> None:
    stream = io.StringIO()
    console = Console(stream, quiet=quiet, verbosity=0, list_failures=False)
    console(Waiting("read", "sub/a\n.png, which is loaded", 60.4))
    line = "No image done for 1 min 0 s: waiting for sub/a\\n.png, which is loaded.\n"
    assert stream.getvalue() == ("" if quiet else line)


@pytest.mark.parametrize(
    ("verbosity", "said"), [(0, ""), (1, "Slower than it might be: no graphs.\n")]
)
def test_what_makes_a_run_slower_is_told_to_those_who_ask(verbosity: int, said: str) -> None:
    stream = io.StringIO()
    Console(stream, quiet=False, verbosity=verbosity, list_failures=False)(Slower("no graphs"))
    assert stream.getvalue() == said


def test_quiet_says_nothing() -> None:
    assert talk(quiet=True) == ""


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("verbosity", [0, 1])
def test_failures_that_are_listed_nowhere_else_are_lines_for_people(
    quiet: bool, verbosity: int
) -> None:
    stream = io.StringIO()
    console = Console(stream, quiet=quiet, verbosity=verbosity, list_failures=True)
    console(Failed("sub/é\n\x1b[31m\udce9.png", "truncated", "The PNG file ends early."))
    assert stream.getvalue() == (
        "sub/é\\n\\x1b[31m\\udce9.png: truncated: The PNG file ends early.\n"
    )


def test_a_plain_line_comes_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    console = Console(stream, quiet=False, verbosity=0, list_failures=False)
    console(Started("caption", "other", None))
    console(ModelReady("other", "cpu", "float32", "", 1.0))
    for _ in range(150):  # one batch a second
        now[0] += 1
        console(Progress(int(now[0] - 1000) * 4, 0, None))
    assert re.findall(r"\d+ images,", stream.getvalue()) == ["240 images,", "480 images,"]
