"""The Python API is typed for callers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CALLER = """
from pathlib import Path
from typing import Any, assert_type
import numpy as np
import torch
from blip2cli import AnswerRow, Blip2, CaptionRow, Rows

model = Blip2.load("tiny", device="cpu")
rows = model.caption(["a.png", Path("b.png")], "a photo of", errors="inline", num_beams=3)
assert_type(rows, Rows[CaptionRow])
assert_type(rows[0], dict[str, Any])
assert_type(rows.as_objects()[0].caption, str | None)
assert_type(model.ask(np.zeros((4, 4, 3), np.uint8), "what?").as_objects(), list[AnswerRow])
for pictures in model.batches(torch.zeros(1) for _ in range(3)):
    model.embed(pictures, "image", progress=True)
model.caption(3)
model.caption("a.png", errors="ignore")
"""


@pytest.mark.external
def test_a_caller_sees_the_types_of_rows_and_arguments(tmp_path: Path) -> None:
    (tmp_path / "caller.py").write_text(CALLER)
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--no-error-summary"]
    cache = ["--cache-dir", str(tmp_path / "cache"), "--config-file="]
    done = subprocess.run(
        [*command, *cache, str(tmp_path / "caller.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 2, done.stdout + done.stderr
    assert 'Argument 1 to "caption"' in errors[0]
    assert 'Argument "errors" to "caption"' in errors[1]
