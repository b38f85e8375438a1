from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.drawn_source import draw_source
from tests.fork_server import ForkServer, start_process
from tests.torture.kills import IMAGES, KillTrials, kill_somewhere
from tests.workload import FORMATS, Reference, Workload, check_final, check_finished, check_legal

pytestmark = pytest.mark.external

KILLS = 25  # a format


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_run_killed_at_any_instant_and_resumed_equals_an_unbroken_one(
    fork_server: ForkServer, tmp_path: Path, suffix: str
) -> None:
    source = draw_source(tmp_path / "source", IMAGES)
    trials = KillTrials.build(fork_server, tmp_path, source, suffix)
    hits = number = 0
    while hits < KILLS:
        hits += trials.trial(seed=0, number=number)
        number += 1
        assert number < 3 * KILLS, "hardly any kill hit a run"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_same_holds_for_processes_of_their_own(
    fork_server: ForkServer, tmp_path: Path, suffix: str
) -> None:
    """As the fork server runs it, without changed constants or modules loaded before."""
    workload = Workload(draw_source(tmp_path / "source", 10), suffix)
    whole, folder = tmp_path / "whole", tmp_path / "folder"
    whole.mkdir()
    folder.mkdir()
    done = start_process(workload.arguments(whole), tmp_path, tmp_path / "hf").wait()
    reference = Reference.of(done, whole, workload.name)
    # Forked, the command makes the same files, down to the last byte.
    fork_server.start(workload.arguments(folder), tmp_path).wait()
    check_final(folder, reference)

    shutil.rmtree(folder)
    folder.mkdir()
    child = start_process(
        workload.arguments(folder, "--resume", batch_size=1), tmp_path, tmp_path / "hf"
    )
    kill_somewhere(child, folder, random.Random(5), seconds=3.0)
    check_legal(folder, [reference])
    arguments = workload.arguments(folder, "--resume")
    check_finished(start_process(arguments, tmp_path, tmp_path / "hf").wait())
    check_final(folder, reference)
