from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.errors import RunError
from blip2cli.options import OutputOptions
from blip2cli.sinks import Settings, jsonl, open_sink
from blip2cli.sinks.jsonl_journal import read_journal
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable
from tests.sinks.helpers import COLUMNS, SETTINGS, open_out, read, row


def test_settings_are_stored_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    sink = open_out(out)
    sink.write([row(0)])
    meta = json.loads((tmp_path / ".out.jsonl.meta.json").read_text())
    assert meta["settings"] == SETTINGS.rows  # from the first row on
    sink.close()


def test_each_batch_can_be_read_at_once(tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.jsonl.gz"):
        sink = open_out(tmp_path / name)
        for number in range(3):
            sink.write([row(2 * number), row(2 * number + 1)])
            data = (tmp_path / name).read_bytes()
            text = zlib.decompressobj(wbits=31).decompress(data) if name.endswith("gz") else data
            assert [json.loads(line) for line in text.splitlines()] == [
                row(n) for n in range(2 * number + 2)
            ]
        sink.close()
        assert read(tmp_path / name) == [row(n) for n in range(6)]


def test_fsync_is_on_a_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = 0
    real = os.fsync

    def counting(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        real(descriptor)

    now = 100.0
    monkeypatch.setattr(os, "fsync", counting)
    monkeypatch.setattr(jsonl.time, "monotonic", lambda: now)
    sink = open_out(tmp_path / "out.jsonl")
    sink.write([row(0)])
    at_start = synced
    for number in range(1, 50):
        sink.write([row(number)])
    assert synced == at_start
    now += jsonl.SYNC_SECONDS
    sink.write([row(50)])
    assert synced == at_start + 1
    sink.write([row(51)])
    assert synced == at_start + 1
    sink.commit()
    assert synced == at_start + 2
    sink.close()


def test_settings_never_speak_for_rows_they_did_not_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    first = open_out(out)
    first.write([row(0)])
    first.close()
    new = Settings({"model": "other"})
    seen: list[tuple[bool, bool]] = []  # (the settings are new, the rows are new) at each step
    real = {name: getattr(os, name) for name in ("replace", "fsync")}

    def watched(name: str) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            for act in (lambda: None, lambda: real[name](*arguments)):
                act()
                journal = read_journal(OutputPaths.of(str(out)), lambda name: 1)
                assert journal is not None
                seen.append((journal.settings == new, read(out) == [row(1)]))
                assert journal.settings in (new, SETTINGS)

        return call

    sink = open_sink(OutputOptions(str(out), overwrite=True), COLUMNS, new, io.BytesIO())
    for name in real:
        monkeypatch.setattr(durable.os, name, watched(name))
    sink.write([row(1)])
    monkeypatch.undo()
    sink.close()
    assert len(seen) > 10
    assert set(seen) == {(False, False), (True, True)}


def test_gzip_members_end_now_and_then(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl.gz"
    sink = open_out(out)
    rows = [row(number, "x" * (jsonl.MEMBER_BYTES // 6)) for number in range(40)]
    for each in rows:
        sink.write([each])
    sink.close()
    assert read(out) == rows
    members = 0
    rest = out.read_bytes()
    while rest:
        unpacker = zlib.decompressobj(wbits=31)
        unpacker.decompress(rest)
        assert unpacker.eof
        rest = unpacker.unused_data
        members += 1
    assert members > 4
    assert out.read_bytes()[4:8] == bytes(4)  # no time stamp


WRITER = """
import itertools, sys
from pathlib import Path
from tests.sinks.helpers import open_out, row
sink = open_out(Path(sys.argv[1]))
for number in itertools.count():
    sink.write([row(number)])
    print(number, flush=True)
"""


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_a_killed_process_loses_nothing_it_had_written(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(out)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        for _ in range(200):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        reported = 200 + process.stdout.read().count(b"\n")
    data = out.read_bytes()
    if name.endswith("gz"):
        data = zlib.decompressobj(wbits=31).decompress(data)
    lines = data.decode().split("\n")
    assert lines.pop() == ""  # the last line is whole
    assert [json.loads(line) for line in lines] == [row(n) for n in range(len(lines))]
    assert len(lines) in (reported, reported + 1)


@pytest.mark.parametrize("replaced", [False, True])
def test_an_output_that_is_taken_away_meanwhile_is_no_success(
    tmp_path: Path, replaced: bool
) -> None:
    out = tmp_path / "out.jsonl"
    sink = open_out(out)
    sink.write([row(0)])
    out.unlink()
    if replaced:
        out.write_text("of somebody else")
    reason = "Another file took the place" if replaced else "was deleted .* and was put back"
    with pytest.raises(RunError, match=reason):
        sink.close()
    sink.abort()
    rows = tmp_path / "out.jsonl.saved-1" if replaced else out
    assert [json.loads(line) for line in rows.read_text().splitlines()] == [row(0)]
    assert not replaced or out.read_text() == "of somebody else"


def test_a_failure_that_only_closing_reports_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_out(tmp_path / "out.jsonl")
    sink.write([row(0)])
    sink.commit()

    def full(descriptor: int) -> None:
        real(descriptor)
        raise OSError(28, "No space left on device")

    real = os.close
    with monkeypatch.context() as patched:
        patched.setattr(os, "close", full)
        with pytest.raises(RunError, match="No space left on device"):
            sink.close()
    sink.abort()
