from __future__ import annotations

import pytest

from blip2cli.errors import RunError
from blip2cli.pipeline.stats import RunStats
from blip2cli.pipeline.stop_conditions import check_error_limit


def stops(most: int | float | None, done: int, failed: int, at_end: bool = False) -> bool:
    try:
        check_error_limit(most, RunStats(done=done, failed=failed), at_end)
    except RunError:
        return True
    return False


def test_so_many_may_fail_and_not_one_more() -> None:
    assert not stops(None, 0, 10_000, at_end=True)
    assert not stops(3, 0, 3)
    assert stops(3, 50, 4)
    assert not stops(0, 50, 0)
    assert stops(0, 50, 1)


def test_a_share_counts_once_enough_images_were_seen() -> None:
    assert not stops(0.05, 1, 1)
    assert stops(0.05, 94, 6)
    assert not stops(0.05, 95, 5)
    assert stops(0.05, 1, 1, at_end=True)


def test_the_message_names_the_limit() -> None:
    with pytest.raises(RunError, match=r"6 of 100 images failed, more than max_errors 5% allows"):
        check_error_limit(0.05, RunStats(done=94, failed=6))
    with pytest.raises(RunError, match=r"4 of 54 images failed, more than max_errors 3 allows"):
        check_error_limit(3, RunStats(done=50, failed=4))
