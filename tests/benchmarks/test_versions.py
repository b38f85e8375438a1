"""Two checkouts are compared in pairs; hops are counted per image."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from checkout import Checkout
from hops import entered, in_model
from versions import Comparison, DifferentError, Workload, compare

ROOT = Path(__file__).resolve().parents[2]


def test_the_interval_of_equal_ratios_is_their_value() -> None:
    comparison = Comparison(old=(1.0, 2.0, 4.0), new=(1.5, 3.0, 6.0))
    assert comparison.ratios == [1.5, 1.5, 1.5]
    assert comparison.interval() == (1.5, 1.5)
    assert str(comparison).startswith("new/old 1.500 [1.500, 1.500] in 3 pairs; medians 2.000 s")


def test_the_interval_holds_the_median_and_narrows_with_more_pairs() -> None:
    few = Comparison((1.0,) * 5, (0.9, 0.95, 1.0, 1.05, 1.1))
    many = Comparison((1.0,) * 50, (0.9, 0.95, 1.0, 1.05, 1.1) * 10)
    (low, high), (lower, upper) = few.interval(), many.interval()
    assert low < lower <= 1.0 <= upper < high


def test_a_checkout_imports_its_own_package(tmp_path: Path) -> None:
    assert Checkout.at(ROOT, Path(sys.executable)).folder == ROOT
    with pytest.raises(ValueError, match="does not import blip2cli from"):
        Checkout.at(tmp_path, Path(sys.executable))


class ChangingWorkload(Workload):
    """Every run has another prompt."""

    prompts = iter(("a photo of", "there are", "a picture of", "this is"))

    def arguments(self, data: Path, out: Path) -> list[str]:
        return [*super().arguments(data, out), "--prompt", next(self.prompts)]


@pytest.mark.external
def test_checkouts_that_write_different_rows_are_not_compared(tmp_path: Path) -> None:
    checkout = Checkout.at(ROOT, Path(sys.executable))
    workload = ChangingWorkload("few", "tiny", 2, (80, 60))
    with pytest.raises(DifferentError, match="write different rows"):
        compare(checkout, checkout, workload, 1, tmp_path)


@pytest.mark.external
def test_hops_are_functions_entered_again_for_a_second_image(tmp_path: Path) -> None:
    checkout = Checkout.at(ROOT, Path(sys.executable))
    one, two = (entered(checkout, images, tmp_path) for images in (1, 2))
    hops = {name for name in two if two[name] > one[name]}
    assert "tasks/caption.py:CaptionTask.rows" in hops
    assert "cli/app.py:call" in one.keys() - hops
    assert any(in_model(name) for name in hops)
