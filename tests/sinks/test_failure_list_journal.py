"""Failures of an earlier run: remembered, repaired, and taken off the list when they succeed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blip2cli.errors import ImageError, OutputError
from blip2cli.options import OutputOptions
from blip2cli.sinks import (
    open_failure_list,
    read_output,
)
from blip2cli.sinks.failure_list_journal import _blocks, _key
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage.hash_set import OCCURRENCE
from blip2cli.storage.text_encoding import to_json
from tests.sinks.helpers import names, put, read, resume, row

BROKEN = ImageError("truncated", "The file ends early.")


def failures(out: Path, *failed: str, fixed: tuple[str, ...] = (), end: bool = True) -> set[str]:
    """Go on with the failures beside ``out``; returns what counted as failed before."""
    output = OutputOptions(str(out), resume=True)
    resumed = read_output(output, lambda name: 1)
    journal = resumed.failures if resumed else None
    errors = open_failure_list(output, journal)
    for name in failed:
        errors.write(name, BROKEN)
    for name in fixed:
        errors.succeeded(name)
    errors.close() if end else errors.abort()
    known = (*names(0, 1), "x.png", "y.png", "z.png")
    return {name for name in known if journal is not None and name in journal.failed}


def noted(out: Path) -> list[str]:
    return [failure["file_name"] for failure in read(out.with_suffix(out.suffix + ".errors"))]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output with one row."""
    path = tmp_path / "out.jsonl"
    _, sink = resume(path)
    put(sink, row(0))
    sink.close()
    return path


def test_failures_are_remembered(out: Path) -> None:
    assert failures(out, "x.png", "y.png", end=False) == set()
    assert failures(out, "z.png") == {"x.png", "y.png"}
    assert noted(out) == ["x.png", "y.png", "z.png"]


def test_a_torn_line_of_the_failures_is_cut_off(out: Path) -> None:
    failures(out, "x.png", "y.png")
    path = out.with_suffix(out.suffix + ".errors")
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        before = failures(out)
        left = [name for name in ("x.png", "y.png") if name not in before]
        path.write_bytes(whole[:end])
        failures(out, *left)
        assert path.read_bytes() == whole, end


def test_what_succeeds_at_last_leaves_the_failures(out: Path) -> None:
    failures(out, "x.png", "y.png", "z.png")
    failures(out, "y.png", fixed=("x.png",))
    assert noted(out) == ["z.png", "y.png"]
    failures(out, fixed=("z.png", "y.png"))
    assert not out.with_suffix(out.suffix + ".errors").exists()


def test_a_retry_that_was_stopped_is_seen_by_its_rows(out: Path) -> None:
    failures(out, "x.png", names(1)[0], "y.png")
    _, sink = resume(out)
    put(sink, row(1))  # it succeeded, and then the process was killed
    assert failures(out) == {"x.png", "y.png"}
    assert noted(out) == ["x.png", "y.png"]


def test_failures_of_an_output_that_is_replaced_go_first(out: Path) -> None:
    failures(out, "x.png")
    errors = open_failure_list(OutputOptions(str(out), overwrite=True))
    errors.remove_old()
    assert not out.with_suffix(out.suffix + ".errors").exists()


_FAILURE = st.fixed_dictionaries(
    {"file_name": st.sampled_from(["a", "b", 'c"', "\udce9", "d\n"]), "error_type": st.just("x")},
    optional={"n": st.integers() | st.floats(0, 1e20) | st.none() | st.lists(st.none()),
              OCCURRENCE: st.integers(1, 3)},
)  # fmt: skip


@given(st.lists(_FAILURE, min_size=1), st.binary(max_size=2), st.integers(0, 200))
def test_lines_that_are_read_together_are_those_that_are_read_one_by_one(
    rows: list[dict[str, Any]], damage: bytes, where: int
) -> None:
    data = b"".join(to_json(row) + b"\n" for row in rows)
    data = data[:where] + damage + data[where + len(damage) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.errors")
        path.write_bytes(data)
        single = [_key(line) for line in data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]]
        try:
            together = [
                key
                for _, keys in _blocks(OutputPaths.of(str(path)[: -len(".errors")]))
                for key in keys
            ]
        except OutputError:
            assert None in single
        else:
            assert together == single
