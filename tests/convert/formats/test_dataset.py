"""Data sets to publish: shards, a card, and what ``datasets`` makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blip2cli.cli.app import call
from blip2cli.errors import OutputError, SourceError
from tests.convert.helpers import (
    NAMES,
    answers,
    captions,
    convert,
    draw,
    in_subprocess,
    write_rows,
)

LOAD = """
from datasets import load_dataset
data = load_dataset(sys.argv[1], cache_dir=sys.argv[2])
assert list(data) == ["train"], list(data)
rows = data["train"]
kinds = {name: type(kind).__name__ for name, kind in rows.features.items()}
print(json.dumps([kinds, [[r["image"].size[0] if "image" in r else 0, r["file_name"], r["caption"]]
                          for r in rows]]))
"""


def front_matter(card: str) -> dict[str, Any]:
    """The YAML of a card, as the hub reads it."""
    from huggingface_hub import DatasetCard

    return dict(DatasetCard(card).data.to_dict())


def test_shards_and_a_card(tmp_path: Path) -> None:
    rows = [row | {"error": None} for row in captions()]
    rows.insert(1, dict.fromkeys(rows[0]) | {"file_name": "lost.jpg", "error": "missing: gone"})
    source = write_rows(tmp_path / "captions.jsonl", rows)
    write_rows(tmp_path / "captions.jsonl.errors", [{"file_name": "x", "error_type": "truncated"}])
    metrics = {"figures": {"cider": {"value": 1.25, "low": 1, "high": 1.5}}}
    (tmp_path / "s.json").write_text(json.dumps({"done": 3, "metrics": metrics}))
    out = tmp_path / "set"
    done = convert(
        source,
        out,
        write_as="dataset",
        image_root=str(draw(tmp_path / "photos")),
        shard_size=2,
        license="cc-by-4.0",
        run_summary=str(tmp_path / "s.json"),
    )
    assert done.notes == ["Left out 1 without a text (failed images): lost.jpg."]
    shards = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.parquet"))
    assert shards == [f"data/train-0000{n}-of-00002.parquet" for n in range(2)]
    found = [row for name in shards for row in pq.read_table(out / name).to_pylist()]
    assert [row["caption"] for row in found] == [row["caption"] for row in captions()]
    assert found[0]["image"]["bytes"] == (tmp_path / "photos" / NAMES[0]).read_bytes()
    assert "error" not in found[0]
    card = (out / "README.md").read_text()
    about = front_matter(card)
    assert (about["license"], about["task_categories"]) == ("cc-by-4.0", ["image-to-text"])
    assert about["size_categories"] == ["n<1K"]
    assert about["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]
    for line in (
        "| rows | 3 |",
        "| images | 3 |",
        "| rows left out, of images that failed | 1 |",
        "| images that failed: truncated | 1 |",
        "| cider | 1.2500 | 1.0000 to 1.5000 |",
        "| image | Image |",
    ):
        assert line in card.splitlines()


def test_the_card_says_how_rows_were_made(tmp_path: Path, images: Path) -> None:
    out = tmp_path / "c.parquet"
    common = ("--model", "tiny", "--max-new-tokens", "4", "--workers", "0", "-q")
    assert call(["caption", str(images), "--prompt", "a | <b>", *common, "-o", str(out)]) == 0
    convert(out, tmp_path / "set", write_as="dataset")
    card = (tmp_path / "set" / "README.md").read_text()
    assert "Captions by `tiny`" in card
    assert "| prompt | a \\| &lt;b> |" in card.splitlines()
    assert "| max_new_tokens | 4 |" in card.splitlines()
    assert str(tmp_path) not in card
    assert "license" not in front_matter(card)


def test_answers_are_no_captions(tmp_path: Path) -> None:
    convert(write_rows(tmp_path / "a.jsonl", answers()), tmp_path / "set", write_as="dataset")
    card = (tmp_path / "set" / "README.md").read_text()
    assert front_matter(card)["task_categories"] == ["visual-question-answering"]
    assert f"| images | {len(NAMES)} |" in card.splitlines()


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "captions.jsonl", captions())
    out = tmp_path / "set"
    with pytest.raises(SourceError, match="There is no image"):
        convert(source, out, write_as="dataset", image_root=str(tmp_path))
    assert not out.exists()
    convert(source, out, write_as="dataset")
    with pytest.raises(OutputError, match=r"holds .(README\.md|data). already"):
        convert(source, out, write_as="dataset")
    convert(source, out, write_as="dataset", overwrite=True, shard_size=1)
    assert len(list(out.rglob("*.parquet"))) == 3
    (out / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="holds other files than those of a data set"):
        convert(source, out, write_as="dataset", overwrite=True)
    with pytest.raises(SourceError, match=r"run_summary .* cannot be read: it is no JSON"):
        convert(source, tmp_path / "b", write_as="dataset", run_summary=str(out / "mine.txt"))


@pytest.mark.external
@pytest.mark.parametrize("with_images", [True, False])
def test_it_loads_with_datasets(with_images: bool, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "captions.jsonl", captions())
    more = {"image_root": str(draw(tmp_path / "photos"))} if with_images else {}
    convert(source, tmp_path / "set", write_as="dataset", shard_size=2, **more)
    kinds, rows = in_subprocess(LOAD, tmp_path / "set", tmp_path / "cache")
    widths = [20, 21, 22] if with_images else [0] * 3
    expected = [(row["file_name"], row["caption"]) for row in captions()]
    assert rows == [[w, *own] for w, own in zip(widths, expected, strict=True)]
    assert kinds.get("image") == ("Image" if with_images else None)
