from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.drawn_source import draw_source
from tests.fork_server import ForkServer
from tests.torture.fuzz import Target, changed, checkpoints, outputs, questions, targets, try_one
from tests.torture.stages import STUB

pytestmark = pytest.mark.external

MUTANTS = 4  # of each kind


def _try(target: Target, fork_server: ForkServer, root: Path) -> None:
    draw_source(root / f"{target.kind}-images", 6 if target.kind.startswith("output") else 2)
    for number in range(MUTANTS):
        try_one(target, fork_server, root, random.Random(f"test/{target.kind}/{number}"))


def test_damaged_archives_tables_and_outputs_end_a_run_as_they_should(tmp_path: Path) -> None:
    with ForkServer(STUB) as stub:
        for target in (*targets(tmp_path), *outputs(stub, tmp_path)):
            _try(target, stub, tmp_path)


def test_damaged_lists_and_checkpoints_end_a_run_as_they_should(
    fork_server: ForkServer, tmp_path: Path
) -> None:
    draw_source(tmp_path / "source", 4)
    for target in (*questions(tmp_path), *checkpoints()):
        _try(target, fork_server, tmp_path)


def test_a_mutant_differs_in_one_file(tmp_path: Path) -> None:
    for target in (*targets(tmp_path), *checkpoints()):
        mutants = [changed(target, random.Random(number)) for number in range(20)]
        for files in mutants:
            assert files.keys() == target.files.keys()
        assert sum(files != target.files for files in mutants) > 10, target.kind
        assert all(sum(f[n] != target.files[n] for n in f) <= 1 for f in mutants)
