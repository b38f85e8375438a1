"""``hf://datasets/OWNER/NAME``: which files of a repository are read, from a hub on loopback."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.errors import SourceError
from blip2cli.sources.readers.hub import _chosen, _converted, _in_split
from tests.cli.helpers import error_sentence
from tests.command import Run
from tests.hub_server import COMMIT, CONVERTED_COMMIT, Hub, serve


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["b.png", "a/c.jpg", "README.md", ".hidden/x.png"], ["a/c.jpg", "b.png"]),
        (["thumb.png", "d/t-1.parquet", "d/t-0.parquet"], ["d/t-0.parquet", "d/t-1.parquet"]),
        (["metadata.parquet", "a.png"], ["a.png"]),
        (["x.tar.gz", "y.tar.gz"], ["x.tar.gz", "y.tar.gz"]),
        (["rows.jsonl"], []),
    ],
)  # fmt: skip
def test_tables_and_archives_win_over_images(names: list[str], chosen: list[str]) -> None:
    assert _chosen("hf://datasets/a/b", names) == chosen


def test_several_kinds_are_refused() -> None:
    with pytest.raises(SourceError, match=r"several kinds: \.parquet or \.tar; name those of one"):
        _chosen("hf://datasets/a/b", ["a.parquet", "b.tar"])


def test_what_the_hub_has_made_is_of_no_other_revision() -> None:
    with pytest.raises(SourceError, match=r"holds no Parquet file.*leave the revision out"):
        _converted("hf://datasets/a/b@v1", "a/b", "v1")


def test_files_of_a_split() -> None:
    names = ["data/train-00000-of-00002.parquet", "train/a.png", "x_train.tar", "train.zip"]
    others = ["data/test-0.parquet", "training/a.png", "constrain.tar", "retrain/a.png"]
    assert [_in_split(name, "train") for name in names + others] == [True] * 4 + [False] * 4


def table(path: Path, images: Path, *names: str) -> None:
    cells = [{"bytes": (images / name).read_bytes(), "path": name} for name in names]
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"image": cells, "label": [f"a {n}" for n in names]}), path)


@pytest.mark.external
def test_data_sets_in_all_forms(images: Path, blip2cli: Run, tmp_path: Path) -> None:
    top = tmp_path / "repos"
    table(top / "tables/data/train-00000-of-00001.parquet", images, "a.png", "b.jpg")
    (top / "tables/thumb.png").write_bytes(b"no picture")
    table(top / "tables/test/0.parquet", images, "c.webp")
    (top / "script").mkdir()
    (top / "script/README.md").write_text("made by a script")
    table(top / "converted/default/train/0000.parquet", images, "d.png")
    table(top / "converted/default/test/0000.parquet", images, "a.png")
    table(top / "two/x/train/0000.parquet", images, "a.png")
    table(top / "two/y/train/0000.parquet", images, "a.png")
    repos = {
        "o/tables": top / "tables",
        "o/images": images,
        "o/script": top / "script",
        "o/two": top / "script",
        "o/none": top / "script",
    }
    converted = {"o/script": top / "converted", "o/two": top / "two"}
    with serve(Hub(repos, converted=converted)) as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}

        def run(*words: str, code: int = 0) -> list[str]:
            common = ("--model", "tiny", "--max-new-tokens", "3", "--workers", "0")
            done = blip2cli("caption", *words, *common, env=env)
            assert done.returncode == code, done.stderr
            lines = done.stdout.splitlines()
            return [json.loads(line)["file_name"] for line in lines] if not code else [done.stderr]

        inside = "data/train-00000-of-00001.parquet"
        assert run("hf://datasets/o/tables") == [
            f"{inside}/a.png", f"{inside}/b.jpg", "test/0.parquet/c.webp",
        ]  # fmt: skip
        assert run("hf://datasets/o/tables", "--split", "test") == ["test/0.parquet/c.webp"]
        assert "d.png" in run("hf://datasets/o/images")
        assert run("hf://datasets/o/script", "--split", "train", "--prompt", "{label}") == [
            "default/train/0000.parquet/d.png"
        ]
        (said,) = run("hf://datasets/o/tables", "--split", "dev", code=2)
        assert "--split dev: no file of 'hf://datasets/o/tables' has it in its name" in said
        (said,) = run("hf://datasets/o/two", code=2)
        assert "has 2 configurations; name one, such as 'hf://datasets/o/two@refs%2Fcon" in said
        (said,) = run("hf://datasets/o/none", code=2)
        assert "the hub has made no Parquet files of it; name a folder" in said
        (said,) = run("hf://datasets/o/tables@v9", code=2)
        assert "There is no 'hf://datasets/o/tables@v9'" in said
        # The commit that was read stands beside the output, and another one is no resume.
        for name, commit in (("tables", COMMIT), ("script", CONVERTED_COMMIT)):
            run(f"hf://datasets/o/{name}", "-o", f"{name}.jsonl")
            (beside,) = tmp_path.glob(f".{name}.jsonl*")
            commits = json.loads(beside.read_text())["sources"]["commits"]
            assert [*commits.values()] == [commit]
            beside.write_text(beside.read_text().replace(commit, "f" * 40))
            (said,) = run(f"hf://datasets/o/{name}", "-o", f"{name}.jsonl", "--resume", code=2)
            assert f"from commit {'f' * 40} of a data set, which has moved to {commit}" in said


def test_a_split_needs_a_data_set(images: Path, blip2cli: Run) -> None:
    said = error_sentence(blip2cli("caption", images, "--split", "train", "--model", "tiny"))
    assert "--split is about data sets of the hub, and none is given" in said
