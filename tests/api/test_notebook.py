"""Rows in a real notebook, whose kernel is a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
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
def test_a_cell_shows_rows_with_thumbnails() -> None:
    python = os.environ.get("NOTEBOOK_PYTHON")
    if python is None:
        pytest.skip("NOTEBOOK_PYTHON names no Python that has ipykernel, nbclient and blip2cli")
    done = subprocess.run(
        [python, "-c", EXECUTE, str(PHOTOS / "cats.png"), json.dumps([str(PHOTOS.parent)])],
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
