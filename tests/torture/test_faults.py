from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fork_server import ForkServer
from tests.torture import injection
from tests.torture.faults import points_of, sample
from tests.torture.stages import STUB, build_stages
from tests.workload import FORMATS, Violation

pytestmark = pytest.mark.external

POINTS = 30  # a format, of some hundreds

needs_strace = pytest.mark.skipif(not injection.available(), reason=injection.MISSING)


@pytest.fixture(scope="module")
def stub_server() -> Iterator[ForkServer]:
    with ForkServer(STUB) as ready:
        yield ready


@needs_strace
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_fault_at_any_system_call_harms_nothing(
    stub_server: ForkServer, tmp_path: Path, suffix: str
) -> None:
    points = [p for stage in build_stages(stub_server, tmp_path, suffix) for p in points_of(*stage)]
    failed = []
    hits = 0
    for point in sample(points, POINTS, seed=0):
        try:
            hits += point.inject(stub_server, tmp_path)
        except Violation as error:
            failed.append(f"{point.name}: {error}")
    assert not failed
    assert hits > POINTS * 0.8


@needs_strace
def test_a_fault_is_injected_where_the_trace_says(stub_server: ForkServer, tmp_path: Path) -> None:
    """The tool itself: a failing write of the output is reported, and nothing else fails."""
    stage, trace = next(build_stages(stub_server, tmp_path, ".jsonl"))
    # A new output got its name by a link, and the name it was opened under is gone.
    writes = [call for call in trace.calls if call.name == "write" and "(deleted)" in call.text]
    folder, log = tmp_path / "trial", tmp_path / "log"
    fault = f"write:error=EDQUOT:when={writes[0].number}"
    ended = stage.run(stub_server, folder, log, trace, fault)
    assert ended.code == 1
    assert os.strerror(122) in ended.stderr
    (hit,) = [line for line in log.read_text().splitlines() if "INJECTED" in line]
    assert "write(" in hit
    assert "/.out.jsonl." in hit
