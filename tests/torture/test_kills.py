from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.torture.kills import IMAGES, Bench, kill_somewhere
from tests.torture.sources import draw_source
from tests.torture.work import FORMATS, Reference, Work, check_final, check_finished, check_legal
from tests.torture.zygote import Zygote, fresh

KILLS = 25  # a format


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_run_killed_at_any_instant_and_resumed_equals_an_unbroken_one(
    zygote: Zygote, tmp_path: Path, suffix: str
) -> None:
    source = draw_source(tmp_path / "source", IMAGES)
    bench = Bench.build(zygote, tmp_path, source, suffix)
    hits = trials = 0
    while hits < KILLS:
        hits += bench.trial(seed=0, number=trials)
        trials += 1
        assert trials < 3 * KILLS, "hardly any kill hit a run"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_same_holds_for_processes_of_their_own(
    zygote: Zygote, tmp_path: Path, suffix: str
) -> None:
    """What the short cut of forking could hide: no constants changed, nothing loaded before."""
    work = Work(draw_source(tmp_path / "source", 10), suffix)
    whole, folder = tmp_path / "whole", tmp_path / "folder"
    whole.mkdir()
    folder.mkdir()
    done = fresh(work.arguments(whole), tmp_path, tmp_path / "hf").wait()
    reference = Reference.of(done, whole, work.name)
    # Forked, the command makes the same files, down to the last byte.
    zygote.start(work.arguments(folder), tmp_path).wait()
    check_final(folder, reference)

    shutil.rmtree(folder)
    folder.mkdir()
    child = fresh(work.arguments(folder, "--resume", batch_size=1), tmp_path, tmp_path / "hf")
    kill_somewhere(child, folder, random.Random(5), seconds=3.0)
    check_legal(folder, [reference])
    arguments = work.arguments(folder, "--resume")
    check_finished(fresh(arguments, tmp_path, tmp_path / "hf").wait())
    check_final(folder, reference)
