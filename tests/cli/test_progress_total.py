"""A large source is counted where somebody sees how much is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blip2cli.cli.app import call
from tests.cli.terminal.summaries import SUMMARY


@pytest.mark.parametrize(
    ("flags", "counted"), [([], False), (["-q"], False), (["--log-json"], True)]
)
def test_the_total_is_for_who_reads_it(
    flags: list[str],
    counted: bool,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs: list[Any] = []

    def run(job: Any, listener: Any) -> Any:
        jobs.append(job)
        return SUMMARY

    monkeypatch.setattr("blip2cli.pipeline.run.run", run)
    out = str(tmp_path / "out.jsonl")
    assert call(["caption", str(images), "--model", "tiny", "-o", out, *flags]) == SUMMARY.exit_code
    assert [job.count_all for job in jobs] == [counted]
