"""Manifests in JSON (COCO annotations, conversations of LLaVA), and packed ones of all kinds."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2cli.errors import OptionError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import ImageRef, open_sources
from tests.images.pictures import picture

COCO = {
    "info": {"description": "x", "list": [1]},
    "licenses": [{"id": 1}],
    "images": [
        {"id": 9, "file_name": "a.png", "height": 3, "coco_url": "http://h/a.png"},
        {"id": 7, "file_name": "b/c.png", "height": 4, "coco_url": "http://h/b/c.png"},
    ],
    "annotations": [{"id": 1, "image_id": 9, "caption": "a cat", "file_name": "none"}],
}
LLAVA = [
    {"id": "1", "image": "a.png", "conversations": [{"from": "human", "value": "<image>\nwhy?"}]},
    {"id": "2", "conversations": [{"from": "human", "value": "no image"}]},
    {"id": "3", "image": "b/c.png", "conversations": []},
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    for name in ("a.png", "b/c.png"):
        (folder / name).write_bytes(picture(1))
    return folder


def listed(path: Path, **options: Any) -> list[ImageRef]:
    return list(open_sources(SourceOptions((str(path),), **options)))


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".json.xz"])
@pytest.mark.parametrize("content", [COCO, LLAVA])
def test_images_of_coco_and_llava(content: Any, suffix: str, photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "annotations" / f"captions{suffix}"
    path.parent.mkdir()
    data = json.dumps(content, indent=1).encode()
    pack: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress}
    path.write_bytes(pack.get(suffix[-3:], bytes)(data))
    refs = listed(path, image_root=str(photos), keep=("id",))
    assert [(ref.file_name, ref.carried[0]) for ref in refs] == [
        ("a.png", content["images"][0]["id"] if content is COCO else "1"),
        ("b/c.png", content["images"][1]["id"] if content is COCO else "3"),
    ]
    assert {len(ref.read()) > 0 for ref in refs} == {True}
    # Without a folder paths are relative to that of the file, as in every manifest.
    assert listed(path)[0].path == str(path.parent / "a.png")


def test_a_column_of_urls(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(COCO))
    refs = listed(tmp_path / "c.json", image_column="coco_url")
    assert [ref.path for ref in refs] == ["http://h/a.png", "http://h/b/c.png"]
    assert [ref.file_name for ref in refs] == ["h/a.png", "h/b/c.png"]


def test_json_that_breaks_off_is_a_failure_behind_its_rows(photos: Path) -> None:
    text = json.dumps(LLAVA * 9)
    (photos / "cut.json").write_text(text[: text.rindex("{")])
    *good, last = listed(photos / "cut.json", keep=("id",))
    assert len(good) == 17
    assert getattr(last, "error_type", None) == "bad_row"
    (photos / "odd.json").write_text('[{"image": "a.png"}, 3]')
    assert [getattr(r, "error_type", "") for r in listed(photos / "odd.json")] == ["", "bad_row"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[{"a": 1', "cannot be read as JSON"),
        ('{"image": "a.png"}\n{"image": "b"}', "there is more behind its end"),
        ('[{"img": "a.png"}]', "has no column file_name, path or image"),
        ("[]", "names no image"),
        ('{"questions": [{"image": "a.png"}]}', "names no image"),
        ("[1, 2]", "a .json file a list of them"),
        ("", "begins neither with an object nor with a list"),
    ],
)
def test_json_that_is_no_manifest(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SourceError, match=sentence):
        listed(tmp_path / "x.json")


@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "jsonl"])
def test_manifests_packed_by_xz(kind: str, photos: Path) -> None:
    names = {"txt": "", "csv": "file_name,n\n", "tsv": "file_name\tn\n", "jsonl": ""}
    rows = {
        "txt": "a.png\nb/c.png\n",
        "csv": "a.png,1\nb/c.png,2\n",
        "tsv": "a.png\t1\nb/c.png\t2\n",
        "jsonl": '{"file_name": "a.png", "n": 1}\n{"file_name": "b/c.png", "n": 2}\n',
    }
    path = photos / f"list.{kind}.xz"
    data = lzma.compress((names[kind] + rows[kind]).encode())
    path.write_bytes(data)
    assert [ref.file_name for ref in listed(path)] == ["a.png", "b/c.png"]
    path.write_bytes(b"x" + data)
    with pytest.raises(SourceError, match="damaged xz file"):
        listed(path)


def test_a_root_is_for_manifests(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="image_root is about the paths in manifests"):
        listed(photos, image_root=str(photos))
    (photos / "l.txt").write_text("a.png\n")
    with pytest.raises(OptionError, match="nowhere is not a folder"):
        listed(photos / "l.txt", image_root=str(tmp_path / "nowhere"))
    (ref,) = listed(photos / "l.txt", image_root=str(photos / "b"))
    assert ref.path == str(photos / "b" / "a.png")
    (photos / "l.txt").write_text("../a.png\n")
    (ref,) = listed(photos / "l.txt", image_root=str(photos / "b"))
    assert getattr(ref, "error_type", None) == "outside_source"
