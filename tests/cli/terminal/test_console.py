from __future__ import annotations

import dataclasses
import io
import re

import pytest

from blip2cli.cli.terminal.console import (
    Console,
    duration,
    progress_line,
    resumed_lines,
    summary_lines,
)
from blip2cli.model.checkpoint.embedded import EMBEDDED
from blip2cli.pipeline.events import (
    Failed,
    Finished,
    Halved,
    ModelReady,
    Progress,
    Resumed,
    Slower,
    Started,
)
from tests.cli.terminal.summaries import SUMMARY


def test_flagged_texts_are_counted() -> None:
    (line,) = summary_lines(dataclasses.replace(SUMMARY, flagged=3))
    assert line.endswith("write 5%); 3 texts flagged.")
    (line,) = summary_lines(dataclasses.replace(SUMMARY, flagged=1, retried=1))
    assert line.endswith("write 5%); 1 text flagged, 1 good after a retry.")
    assert "flagged" not in summary_lines(SUMMARY)[0]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (3599.4, "59 min 59 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_read_naturally(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_plain_line_says_how_far_how_quick_and_how_long() -> None:
    line = progress_line(Progress(done=48, failed=2, total=200), seconds=25)
    assert line == "50 of 200 images, 2 failed, 2.00 images/s, 1 min 15 s left"
    assert progress_line(Progress(5, 0, None), 10) == "5 images, 0.50 images/s"
    assert progress_line(Progress(5, 0, 9), 10, "text").startswith("5 of 9 texts, 0.50 texts/s")


def test_the_summary_holds_every_figure() -> None:
    assert summary_lines(SUMMARY) == [
        (
            "10 images answered in 20 rows, 2 failed, 1 skipped; 1 min 30 s, 5.00 images/s "
            "(read 25%, model 70%, write 5%)."
        )
    ]
    [_, where] = summary_lines(SUMMARY, "out.errors.jsonl")
    assert where == "Images that failed are listed in out.errors.jsonl"
    assert len(summary_lines(dataclasses.replace(SUMMARY, failed=0), "x")) == 1
    interrupted = dataclasses.replace(SUMMARY, exit_code=143)
    assert summary_lines(interrupted)[1].startswith("Interrupted; ")
    assert (
        ", 1 skipped, 7 done before; " in summary_lines(dataclasses.replace(SUMMARY, already=7))[0]
    )


def test_the_summary_of_texts_counts_texts() -> None:
    texts = dataclasses.replace(
        SUMMARY, task="embed", done=1, rows=1, failed=0, skipped=0, unit="text"
    )
    assert summary_lines(texts)[0].startswith("1 text embedded; 1 min 30 s, 5.00 texts/s (")


def test_a_run_that_stopped_early_says_how_to_go_on() -> None:
    again = "blip2cli ask photos -o out.jsonl --resume"
    for code, why in ((143, "Interrupted; "), (4, "The time of --max-duration is up; ")):
        stopped = dataclasses.replace(SUMMARY, exit_code=code)
        lines = summary_lines(stopped, None, again)
        assert lines[1].startswith(why)
        assert lines[2] == f"Go on with: {again}"
    assert len(summary_lines(SUMMARY, None, again)) == 1


def test_nothing_left_is_said_as_such() -> None:
    idle = dataclasses.replace(SUMMARY, done=0, failed=0, rows=0, already=12, exit_code=0)
    assert summary_lines(idle) == ["Nothing left to do: 12 images done before."]


def test_going_on_says_what_is_there() -> None:
    assert resumed_lines(Resumed(1, 0, 0, None)) == ["Going on: 1 image done before."]
    assert resumed_lines(Resumed(9, 2, 0, "0.0.9")) == [
        "Going on: 9 images done before, 2 failed before (--retry-errors tries them again).",
        "Note: the rows so far were written by blip2cli 0.0.9.",
    ]
    assert resumed_lines(Resumed(9, 0, 2, None)) == [
        "Going on: 9 images done before, 2 that failed are tried again."
    ]


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
