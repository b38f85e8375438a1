"""The page of results says what results.json holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from machine import Machine
from peers import OTHERS
from results import Found, Line, median_ratio, record

MACHINE = Machine("Some CPU", 2, {"float32": 2e11}, 2e10)


def found(name: str, ratio: float) -> Found:
    lines = [
        Line("docs", "float32", "batch 1", 4, 2.0, ratio),
        Line("ours", "bfloat16", "batch 8", 16, 8.0, 1.0),
    ]
    return Found(name, "captions", 3, lines, MACHINE, "bfloat16", 1.0, 2.0, ["vision: 1 s"], ["a"])


def test_a_ratio_is_the_median_over_rounds() -> None:
    assert median_ratio([4.0, 9.0, 2.0], [1.0, 3.0, 2.0]) == 3.0


def test_a_race_that_runs_again_replaces_its_own_entry(tmp_path: Path) -> None:
    record(found("one", 3.0), tmp_path)
    record(found("two", 4.0), tmp_path)
    record(found("one", 5.0), tmp_path)
    record(replace(found("one", 9.0), machine=replace(MACHINE, name="Other CPU")), tmp_path)
    machines = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert machines["Other CPU"]["one"]["results"][0]["ratio"] == 9.0
    kept = machines["Some CPU"]
    assert [kept[name]["results"][0]["ratio"] for name in ("one", "two")] == [5.0, 4.0]
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    none = "– | " * (len(OTHERS) - 1)
    assert f"| one | captions | 8 images/s, bfloat16 | {none}5.00x (float32) | 50% |" in page
    assert f"| two | captions | 8 images/s, bfloat16 | {none}4.00x (float32) |" in page
    assert "- vision: 1 s" in page
    assert [line for line in page.splitlines() if line.startswith("#")] == [
        "# Results of the races",
        "## Some CPU",
        "## Other CPU",
        "### one, Some CPU",
        "### two, Some CPU",
        "### one, Other CPU",
    ]


def test_what_has_no_peers_has_a_section_alone(tmp_path: Path) -> None:
    record(Found("startup", "start-up", 9, [], MACHINE, notes=["--help: 0.2 s"]), tmp_path)
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "| startup" not in page
    assert "- --help: 0.2 s" in page
