"""The scripts of a page have types, in comments, which TypeScript checks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.external

CONFIG = Path(__file__).parents[2] / "blip2cli/report/page/jsconfig.json"
COMPILER = "typescript@7.0.2"


def test_types_of_the_scripts_agree() -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: nothing checks types of JavaScript")
    done = subprocess.run(
        [npm, "exec", "--yes", "--package", COMPILER, "--", "tsc", "--project", CONFIG],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "npm error" in done.stderr:
        pytest.skip(f"npm has no {COMPILER} here: {done.stderr[:300]}")
    assert (done.returncode, done.stdout) == (0, "")
