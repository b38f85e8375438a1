from __future__ import annotations

import pytest

from tests.pretend import what_is_missing
from tests.torture.gpu_memory import trial

MISSING = what_is_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.mark.parametrize("number", [4, 6, 8])  # all with ``tiny``
def test_an_image_fails_for_want_of_memory_or_its_rows_are_right(number: int) -> None:
    trial(1, number, images=2, rounds=2)
