"""Rows in a real notebook, whose kernel is a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PHOTOS = Path(__file__).parents[2] / "sample_images"
EXECUTE = """
import json, sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.v4.new_notebook()
code = f'''import sys; sys.path[:0] = {json.loads(sys.argv[2])!r}
from blip2cli import Blip2
Blip2.load("tiny").caption({sys.argv[1]!r}, progress=True)'''
notebook.cells = [nbformat.v4.new_code_cell(code)]
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
outputs = notebook.cells[0].outputs
print(json.dumps([each["data"] for each in outputs if each.output_type == "execute_result"]))
"""


@pytest.mark.external
@pytest.mark.skipif(
    not (find_spec("nbclient") and find_spec("ipykernel")),
    reason="nbclient and ipykernel are not installed",
)
def test_a_cell_shows_rows_with_thumbnails() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(PHOTOS / "cats.png"), json.dumps([str(PHOTOS.parent)])],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (shown,) = json.loads(done.stdout)
    assert "two cats and a pizza on a blue background" in shown["text/plain"]
    assert "two cats and a pizza on a blue background" in shown["text/html"]
    assert '<img src="data:image/jpeg;base64,' in shown["text/html"]
