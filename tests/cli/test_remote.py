"""Sources on other machines, from a shell's point of view."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.parquet as pq

from tests.cli.helpers import error_sentence
from tests.command import Run
from tests.hub_server import Hub, serve
from tests.s3_server import S3

NAMES = ["a.png", "b.jpg", "c.webp", "d.png", "e/f.bmp"]


def test_a_prefix_on_s3_gives_the_bytes_that_the_folder_gives(
    mixed: Path, checkpoint: Path, s3: S3, blip2cli: Run, called: Run, tmp_path: Path
) -> None:
    s3.upload("process-bucket", mixed, "some/where/")
    common = ("--model", checkpoint, "--workers", "1", "--max-new-tokens", "5")
    here = called("caption", mixed, *common, "-o", "here.jsonl")
    url = "s3://process-bucket/some/where"
    page = ("--report", "page.html")
    there = blip2cli("caption", url, *common, *page, "-o", "there.jsonl", env=s3.environment)
    assert (here.returncode, there.returncode) == (3, 3), there.stderr
    for ending in (".jsonl", ".jsonl.errors"):
        content = (tmp_path / f"there{ending}").read_text()
        assert content == (tmp_path / f"here{ending}").read_text()
        assert "process-bucket" not in content
    # Nothing of what the libraries like to say comes through, not even at the end.
    assert len(there.stderr.splitlines()) - 1 == len(here.stderr.splitlines()) == 2
    assert "5 pictures into page.html" in there.stderr
    assert "process-bucket" not in (tmp_path / "page.html").read_text()
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert not any(b"a-secret-key" in path.read_bytes() for path in files)


def test_a_data_set_on_the_hub(images: Path, checkpoint: Path, blip2cli: Run) -> None:
    private = Hub({"someone/photos": images}, private={"someone/photos": "hf_secret"})
    with serve(private):
        env = {"HF_ENDPOINT": private.url, "HF_HUB_OFFLINE": "0"}
        url = "hf://datasets/someone/photos"
        refused = blip2cli("caption", url, "--model", checkpoint, env=env)
        assert "set HF_TOKEN if it is private" in error_sentence(refused)
        env["HF_TOKEN"] = "hf_secret"
        done = blip2cli("embed", url, "--model", checkpoint, env=env)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["file_name"] for line in done.stdout.splitlines()] == NAMES
    assert len(done.stderr.splitlines()) == 1
    assert set(private.downloads().values()) == {1}


def test_listing_and_mistakes_leave_one_line_each(images: Path, s3: S3, blip2cli: Run) -> None:
    s3.upload("listed", images, "")
    done = blip2cli("caption", "s3://listed", "--model", "tiny", "--dry-run", env=s3.environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == ["caption: 5 images", "  a.png"]
    missing = blip2cli("caption", "s3://listed/none", "--model", "tiny", env=s3.environment)
    assert error_sentence(missing) == "There is no 's3://listed/none'; check the name."
    both = blip2cli("caption", "s3://listed", images, "--model", "tiny", env=s3.environment)
    assert "run them apart" in error_sentence(both)


def test_rows_go_to_a_folder_of_a_store(images: Path, s3: S3, blip2cli: Run, called: Run) -> None:
    s3.bucket("rows", {})
    url = "s3://rows/of/mine/"
    command = ("caption", images, "--model", "tiny", "--rows-per-part", "2", "-o", url)
    done = blip2cli(*command, env=s3.environment)
    assert done.returncode == 0, done.stderr
    parts = [s3.read("rows", f"of/mine/part-0000{number}.parquet") for number in range(3)]
    rows = [row for part in parts for row in pq.read_table(io.BytesIO(part)).to_pylist()]
    assert [row["file_name"] for row in rows] == NAMES
    said = error_sentence(called("caption", images, "-o", "s3://key:s3cr3t@bucket/out/"))
    assert "holds a password" in said
    assert "s3cr3t" not in said
    said = error_sentence(called("caption", images, "--summary", "gs://bucket/summary.json"))
    assert "name a local file" in said
