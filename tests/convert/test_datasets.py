"""What Hugging Face ``datasets`` makes of converted results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blip2cli.errors import OptionError, OutputError, SourceError
from tests.convert.helpers import (
    NAMES,
    answers,
    captions,
    convert,
    draw,
    in_subprocess,
    read_rows,
    write_rows,
)

LOAD_FOLDER = """
from datasets import load_dataset
# Without data_files the "val" in one of the names would make a split of its own.
files = {"train": sys.argv[1] + "/**"}
data = load_dataset("imagefolder", data_files=files, cache_dir=sys.argv[2], split="train")
print(json.dumps([[row["image"].size[0], row["text"]] for row in data]))
"""
LOAD_PARQUET = """
from datasets import load_dataset
data = load_dataset("parquet", data_files=sys.argv[1], cache_dir=sys.argv[2], split="train")
kinds = {name: type(kind).__name__ for name, kind in data.features.items()}
print(json.dumps([kinds, [[r["image"].size[0], r["file_name"], r["caption"]] for r in data]]))
"""
LOADED = [[20, "a fort"], [21, "two\ncows"], [22, "ein Stück"]]


@pytest.mark.parametrize("metadata", ["jsonl", "parquet"])
def test_an_imagefolder_loads_with_its_captions(metadata: str, tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    source = write_rows(tmp_path / "captions.jsonl", captions())
    out = tmp_path / "set"
    convert(source, out, write_as="imagefolder", image_root=str(root), metadata=metadata)
    assert sorted(in_subprocess(LOAD_FOLDER, out, tmp_path / "cache")) == LOADED
    convert(out, tmp_path / "back.jsonl")
    assert read_rows(tmp_path / "back.jsonl") == captions()


def test_metadata_beside_the_images_makes_their_folder_a_data_set(tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    source = write_rows(tmp_path / "captions.jsonl", captions())
    before = {path: path.stat().st_ino for path in root.rglob("*.*")}
    convert(source, root, write_as="imagefolder")
    after = {path: path.stat().st_ino for path in root.rglob("*.*")}
    assert after.keys() - before.keys() == {root / "metadata.jsonl"}
    assert before.items() <= after.items()
    assert sorted(in_subprocess(LOAD_FOLDER, root, tmp_path / "cache")) == LOADED
    with pytest.raises(OutputError, match=r"holds 'metadata.jsonl' already"):
        convert(source, root, write_as="imagefolder")
    with pytest.raises(OutputError, match="one metadata file only"):
        convert(source, root, write_as="imagefolder", overwrite=True, metadata="parquet")


@pytest.mark.parametrize("images", ["link", "copy", "none"])
def test_images_are_linked_copied_or_left(images: str, tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    source = write_rows(tmp_path / "captions.jsonl", captions())
    convert(source, tmp_path / "set", write_as="imagefolder", image_root=str(root), images=images)
    there = tmp_path / "set" / NAMES[1]
    assert there.exists() == (images != "none")
    if images != "none":
        assert there.read_bytes() == (root / NAMES[1]).read_bytes()
        assert os.path.samefile(there, root / NAMES[1]) == (images == "link")


def test_failed_images_stay_out_and_are_counted(tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    rows = [row | {"error": None} for row in captions()]
    rows.insert(1, dict.fromkeys(rows[0]) | {"file_name": "lost.jpg", "error": "missing: gone"})
    source = write_rows(tmp_path / "captions.jsonl", rows)
    done = convert(source, tmp_path / "set", write_as="imagefolder", image_root=str(root))
    assert done.notes == ["Left out 1 without a text (failed images): lost.jpg."]
    written = read_rows(tmp_path / "set" / "metadata.jsonl")
    assert [row["file_name"] for row in written] == list(NAMES)
    assert "error" not in written[0]


def test_a_folder_that_cannot_be_completed_does_not_appear(tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    source = write_rows(
        tmp_path / "c.jsonl", [*captions(), captions()[0] | {"file_name": "no.jpg"}]
    )
    with pytest.raises(SourceError, match=r"There is no image 'no.jpg' in image_root"):
        convert(source, tmp_path / "set", write_as="imagefolder", image_root=str(root))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jsonl", "photos"]


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "", "./x.jpg"])
@pytest.mark.parametrize("kind", ["imagefolder", "sidecar", "webdataset", "image-parquet"])
def test_names_that_lead_out_of_the_folder_are_refused(
    kind: str, name: str, tmp_path: Path
) -> None:
    root = draw(tmp_path / "photos")
    source = write_rows(tmp_path / "captions.jsonl", [captions()[0] | {"file_name": name}])
    (tmp_path / "x.jpg").write_bytes(b"private")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SourceError, match="no path below a folder"):
        convert(source, tmp_path / "set.tar", write_as=kind, image_root=str(root))
    assert sorted(p for p in tmp_path.rglob("*") if p.name != "set.tar") == before


def test_images_in_parquet_load_as_images(tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    source = write_rows(tmp_path / "captions.jsonl", captions())
    out = tmp_path / "set.parquet"
    convert(source, out, write_as="image-parquet", image_root=str(root))
    kinds, rows = in_subprocess(LOAD_PARQUET, out, tmp_path / "cache")
    assert kinds["image"] == "Image"
    assert kinds["caption"] == "Value"
    assert rows == [[20 + i, r["file_name"], r["caption"]] for i, r in enumerate(captions())]
    done = convert(out, tmp_path / "back.jsonl")
    assert done.notes == ["Left out: image, which hold bytes."]
    assert read_rows(tmp_path / "back.jsonl") == captions()


def test_images_in_parquet_can_be_captioned_again(tmp_path: Path) -> None:
    from blip2cli.options import SourceOptions
    from blip2cli.sources import open_sources

    root = draw(tmp_path / "photos")
    source = write_rows(tmp_path / "answers.jsonl", answers())
    out = tmp_path / "set.parquet"
    convert(source, out, write_as="image-parquet", image_root=str(root))
    first = next(open_sources(SourceOptions((str(out),))))
    assert first.file_name == NAMES[0]
    assert first.read() == (root / NAMES[0]).read_bytes()


@pytest.mark.parametrize("kind", ["imagefolder", "webdataset", "image-parquet"])
def test_formats_with_images_ask_for_their_folder(kind: str, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "captions.jsonl", captions())
    with pytest.raises(OptionError, match=r"say with image_root DIR"):
        convert(source, tmp_path / "out.tar", write_as=kind)
    with pytest.raises(OptionError, match="is not a folder"):
        convert(source, tmp_path / "out.tar", write_as=kind, image_root=str(tmp_path / "none"))


def test_a_column_called_text_is_not_lost(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "c.jsonl", [row | {"text": "alt"} for row in captions()])
    with pytest.raises(SourceError, match="have a column text already"):
        convert(source, tmp_path / "set", write_as="imagefolder", images="none")
    convert(source, tmp_path / "set", write_as="imagefolder", images="none", text_column="text")
    assert read_rows(tmp_path / "set" / "metadata.jsonl")[0]["text"] == "alt"
