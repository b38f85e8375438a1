from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest

from blip2cli.cli.terminal.log_json import JsonLog
from blip2cli.cli.terminal.spelling import as_json
from blip2cli.errors import option
from blip2cli.pipeline.events import (
    Failed,
    Finished,
    ModelReady,
    Progress,
    Resumed,
    Started,
    TookOver,
    Waiting,
)
from tests.cli.terminal.summaries import SUMMARY


def test_every_event_is_an_object_a_line() -> None:
    stream = io.StringIO()
    log = JsonLog(stream)
    for event in (
        Started("ask", "tiny", 12),
        TookOver("process 7 on here"),
        Resumed(3, 1, 0, None),
        ModelReady("tiny", "cpu", "float32", "why not", 2.0),
        Failed("a\n.png", "truncated", "It ends too early."),
        Progress(1, 1, None),
        Finished(SUMMARY),
    ):
        log(event)
    log.error("It is full.", 1)
    said: list[dict[str, Any]] = [json.loads(line) for line in stream.getvalue().splitlines()]
    names = "started took_over resumed model_ready failed progress finished error"
    assert [each["event"] for each in said] == names.split()
    assert all(abs(each.pop("time") - time.time()) < 60 for each in said)
    assert said[4] == {
        "event": "failed",
        "file_name": "a\n.png",
        "error_type": "truncated",
        "message": "It ends too early.",
    }
    assert said[6] == {"event": "finished"} | SUMMARY.as_dict()
    assert said[7] == {"event": "error", "message": "It is full.", "exit_code": 1}


def test_progress_has_its_rate_and_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stream = io.StringIO()
    log = JsonLog(stream)
    log(ModelReady("tiny", "cpu", "float32", "why not", 2.0))
    now = 108.0
    log(Progress(15, 1, 48))
    log(Progress(15, 1, None))
    log(Waiting("read", "a.png, which is loaded", 60.0))
    said = [json.loads(line) for line in stream.getvalue().splitlines()[1:]]
    paces = [(each["images_per_second"], each["seconds_left"]) for each in said[:2]]
    assert paces == [(2.0, 16.0), (2.0, None)]
    assert said[2] | {"time": 0} == {
        "time": 0,
        "event": "waiting",
        "stage": "read",
        "what": "a.png, which is loaded",
        "seconds": 60.0,
    }


def test_values_hold_flags_and_no_secrets_and_steer_nothing() -> None:
    note = f"{option('resume')} reads http://me:pw@h/x.png?sig=1 \x1b \x7f \x9b \u2028"
    line = as_json({"notes": [note, {"more": note}], "rows": 3})
    assert line.isascii()
    assert line.isprintable()
    value = "--resume reads http://me:***@h/x.png?*** \x1b \x7f \x9b \u2028"
    assert json.loads(line) == {"notes": [value, {"more": value}], "rows": 3}
