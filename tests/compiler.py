"""Whether a C++ compiler is installed, for tests that compile."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

COMPILER = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


needs_compiler = pytest.mark.skipif(
    shutil.which(COMPILER) is None, reason=f"there is no {COMPILER}"
)
