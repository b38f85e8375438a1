"""A few of the trials that ``python -m tests.torture.store_kills`` does by the hundreds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.store_kills import trials_of

pytestmark = pytest.mark.external


@pytest.mark.parametrize("faults", [False, True])
def test_runs_into_a_store_survive_kills(tmp_path: Path, faults: bool) -> None:
    with trials_of(tmp_path, on_weed=False, faults=faults) as trials:
        expected = trials.unbroken()
        assert sum(trials.trial(expected, 3, number) for number in range(3)) > 0
