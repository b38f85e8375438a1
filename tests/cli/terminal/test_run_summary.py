from __future__ import annotations

import dataclasses

import pytest

from blip2cli.cli.terminal.run_summary import (
    duration,
    progress_line,
    resumed_lines,
    summary_lines,
)
from blip2cli.pipeline.events import (
    Progress,
    Resumed,
)
from tests.cli.terminal.summaries import SUMMARY


def test_flagged_texts_are_counted() -> None:
    (line,) = summary_lines(dataclasses.replace(SUMMARY, flagged=3))
    assert line.endswith("write 5%); 3 texts flagged.")
    (line,) = summary_lines(dataclasses.replace(SUMMARY, flagged=1, retried=1))
    assert line.endswith("write 5%); 1 text flagged, 1 good after a retry.")
    assert "flagged" not in summary_lines(SUMMARY)[0]


def test_files_of_kinds_that_are_not_read_are_counted() -> None:
    [_, line] = summary_lines(dataclasses.replace(SUMMARY, other_files={"": 1, ".cr2": 7}))
    assert line == "Passed over, of kinds that are not read: 7 .cr2, 1 without a suffix."


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
    [_, where] = summary_lines(SUMMARY, "out.jsonl.errors")
    assert where == "Images that failed are listed in out.jsonl.errors"
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
