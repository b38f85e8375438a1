"""The files that the examples of the documentation work on."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SAMPLES = Path(__file__).parents[2] / "sample_images"
CAPTIONS = {
    "breakfast.jpg": "an apple, a banana and a cup on a yellow background",
    "cats.png": "two cats and a pizza on a blue background",
    "elephant.jpg": "an elephant on a green background",
    "farm/cows.jpg": "three cows on a brown background",
    "farm/stable.png": "a horse and a pig on a purple background",
    "garden.webp": "two flowers and a butterfly on a teal background",
    "harbor.webp": "two boats and a fish on a white background",
    "night.png": "two stars and a moon on a black background",
    "party.jpg": "a cake, a ball and a guitar on a pink background",
    "sideways.jpg": "a tree and a house on an orange background",
    "street/bus_stop.jpg": "a bus, a bicycle and an umbrella on a gray background",
    "street/traffic.png": "two cars on a red background",
}


def lay_out(folder: Path) -> None:
    """Put into ``folder``:

    ``sample_images``, a link; ``photos/``, a copy of it; ``labels.csv``, the captions that are
    true of them; ``coco.json``, the same as annotations; ``questions.csv``, a question about each
    with its answer; ``products.csv`` and ``vqa.parquet``, tables with columns for prompts.
    """
    (folder / "sample_images").symlink_to(SAMPLES)
    shutil.copytree(SAMPLES, folder / "photos")
    _table(folder / "labels.csv", ("file_name", "caption"), list(CAPTIONS.items()))
    questions = [
        (name, "is there a cat?", "yes" if "cat" in text.split(" and ")[0] else "no")
        for name, text in CAPTIONS.items()
    ]
    _table(folder / "questions.csv", ("file_name", "question", "answer"), questions)
    names = [f"photos/{name}" for name in CAPTIONS]
    rows = [(name, "red", Path(name).stem, str(n), "1.50") for n, name in enumerate(names)]
    _table(folder / "products.csv", ("file_name", "brand", "title", "sku", "price"), rows)
    asked = {"file_name": names, "question": ["what is in the picture?"] * len(names)}
    choices = {each: [f"{each} {Path(name).stem}" for name in names] for each in "abcd"}
    pq.write_table(pa.table(asked | choices), folder / "vqa.parquet")
    images = [{"id": n, "file_name": name} for n, name in enumerate(CAPTIONS, 1)]
    annotations = [
        {"id": n, "image_id": n, "caption": text} for n, text in enumerate(CAPTIONS.values(), 1)
    ]
    (folder / "coco.json").write_text(
        json.dumps({"images": images, "annotations": annotations}), encoding="utf-8"
    )


def _table(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
