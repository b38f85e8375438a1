"""WebDataset shards, read back with ``webdataset`` and as a source of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2cli.errors import OutputError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import open_sources
from tests.convert.helpers import NAMES, answers, captions, convert, draw, in_subprocess, write_rows

LOAD = """
import webdataset
data = webdataset.WebDataset(sys.argv[1:], shardshuffle=False).decode("pil")
image = lambda s: next(s[kind] for kind in ("jpg", "png", "webp") if kind in s)
print(json.dumps([[s["__key__"], s["txt"], s["json"], image(s).size[0]] for s in data]))
"""


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    source = write_rows(tmp_path / "c.jsonl", captions())
    convert(source, tmp_path / "w.tar", image_root=str(root), shard_size=2)
    shards = sorted(tmp_path.glob("w-*.tar"))
    assert [path.name for path in shards] == ["w-000000.tar", "w-000001.tar"]
    samples = in_subprocess(LOAD, *shards)
    assert [sample[0] for sample in samples] == [
        "COCO_val2014_000000000012",
        "farm/two_cows_7",
        "x 33",
    ]
    assert [sample[1] for sample in samples] == ["a fort", "two cows", "ein Stück"]
    assert [sample[2] for sample in samples] == captions()
    assert [sample[3] for sample in samples] == [20, 21, 22]


def test_answers_of_one_image_are_one_sample(tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    source = write_rows(tmp_path / "a.jsonl", answers())
    convert(source, tmp_path / "w.tar", image_root=str(root))
    samples = in_subprocess(LOAD, tmp_path / "w-000000.tar")
    assert [sample[1] for sample in samples] == ["i0\nh0", "i1\nh1", "i2\nh2"]
    assert samples[0][2]["file_name"] == NAMES[0]
    assert [a["question_id"] for a in samples[1][2]["answers"]] == ["10", "11"]


@pytest.mark.parametrize("order", [(0, 0, 1), (0, 1, 0)])
def test_several_captions_of_one_image_are_refused(order: tuple[int, ...], tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    rows = [captions()[n] for n in order]
    source = write_rows(tmp_path / "c.jsonl", rows)
    with pytest.raises(SourceError, match="has several rows, and a sample holds one"):
        convert(source, tmp_path / "w.tar", image_root=str(root))


def test_names_that_differ_in_dots_only_stay_apart(tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    names = ["a.b.webp", "a_b.webp", ".c.webp", "a_b.png"]
    for name in names:
        (root / name).write_bytes((root / NAMES[2]).read_bytes())
    rows = [captions()[0] | {"file_name": name, "caption": name} for name in names]
    convert(write_rows(tmp_path / "c.jsonl", rows), tmp_path / "w.tar", image_root=str(root))
    samples = in_subprocess(LOAD, tmp_path / "w-000000.tar")
    assert [sample[0] for sample in samples] == ["a_b", "a_b-1", "_c", "a_b-2"]
    assert [sample[2]["file_name"] for sample in samples] == names


def test_shards_can_be_captioned_again_with_what_they_hold(tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    source = write_rows(tmp_path / "c.jsonl", captions())
    convert(source, tmp_path / "w.tar", image_root=str(root))
    refs = list(open_sources(SourceOptions((str(tmp_path / "w-000000.tar"),), keep=("txt",))))
    assert [ref.read() for ref in refs] == [(root / name).read_bytes() for name in NAMES]
    assert [ref.carried for ref in refs] == [("a fort",), ("two cows",), ("ein Stück",)]


def test_old_shards_are_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    source = write_rows(tmp_path / "c.jsonl", captions())
    out = tmp_path / "w.tar"
    convert(source, out, image_root=str(root), shard_size=1)
    with pytest.raises(OutputError, match=r"'w-000000.tar' is there already"):
        convert(source, out, image_root=str(root))
    convert(source, out, image_root=str(root), shard_size=2, overwrite=True)
    assert [p.name for p in sorted(tmp_path.glob("w-*"))] == ["w-000000.tar", "w-000001.tar"]
