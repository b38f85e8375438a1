"""Whatever a folder holds, a run gives every image its row or its named failure, and ends."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blip2cli.images.batch_stream import BatchStream
from blip2cli.images.preprocess import PixelSpec
from blip2cli.options import LoaderOptions, SourceOptions
from blip2cli.sources import open_sources
from blip2cli.storage.text_encoding import from_utf8
from tests.bad_input import make_folder, picture
from tests.command import COMMAND, environment
from tests.images.pictures import encoded

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2


def without_roots_reading_right() -> None:
    """Let permission bits bind the command about to be run, also when root runs the tests."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
            if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")


def run(cwd: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(cwd / "hf"),
        preexec_fn=without_roots_reading_right,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_folder_of_everything(suffix: str, tmp_path: Path) -> None:
    sizes, kinds = make_folder(tmp_path / "folder")
    # In Parquet the command reads with workers under a time limit, in JSON Lines without.
    how = ("--workers", "2", "--image-timeout", "90") if suffix == "parquet" else ("--workers", "0")
    shape = ("--model", "tiny", "--max-new-tokens", "3", "--batch-size", "7")
    done = run(tmp_path, "caption", "folder", *shape, *how, "-o", f"out.{suffix}")
    assert done.returncode == 3, done.stderr
    assert f"\n{len(sizes)} images captioned, {len(kinds)} failed; " in done.stderr
    assert "Traceback" not in done.stderr
    if suffix == "jsonl":
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    else:
        rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    for row in rows:
        row["file_name"] = from_utf8(row["file_name"])
    assert {row["file_name"]: (row["width"], row["height"]) for row in rows} == sizes
    assert len(rows) == len(sizes)
    assert all(row["caption"] for row in rows)
    # In source order: that of the names' bytes.
    names = [os.fsencode(row["file_name"]) for row in rows]
    assert names == sorted(names)
    listed = (tmp_path / f"out.{suffix}.errors").read_bytes()
    noted = [json.loads(line) for line in listed.splitlines()]
    assert {from_utf8(entry["file_name"]): entry["error_type"] for entry in noted} == kinds
    assert len(noted) == len(kinds)
    assert all(entry["message"].endswith(".") for entry in noted)


def test_a_name_that_begins_with_a_dash_follows_two_dashes(tmp_path: Path) -> None:
    (tmp_path / "-x.png").write_bytes(encoded(picture(), "PNG"))
    done = run(tmp_path, "caption", "--model", "tiny", "--max-new-tokens", "3", "--", "-x.png")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file_name"] == "-x.png"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_vanishes_after_it_was_listed(workers: int, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(encoded(picture(), "PNG"))
    refs = list(open_sources(SourceOptions((str(tmp_path),))))
    (tmp_path / "b.png").unlink()
    with BatchStream(refs, PixelSpec(8, 8), LoaderOptions(4, workers)) as batches:
        (batch,) = batches
    kinds = [item.error and item.error.error_type for item in batch.items]
    assert kinds == [None, "missing", None]
