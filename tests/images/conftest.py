from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator

import pytest

from tests.images.helpers import prefetch_threads, until


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    """Checks that the prefetch thread ends and what it changes in the process is restored."""
    before = (sys.getswitchinterval(), list(warnings.filters))
    yield
    assert until(lambda: not prefetch_threads())
    assert (sys.getswitchinterval(), list(warnings.filters)) == before
