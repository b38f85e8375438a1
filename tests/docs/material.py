"""The files that the examples of the documentation work on."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from blip2cli.tiny import samples

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_images"
CAPTIONS = {
    one.file_name: one.caption for one in sorted(samples.SAMPLES, key=lambda one: one.file_name)
}


def lay_out(folder: Path) -> None:
    """Put into ``folder``:

    ``sample_images``, a link; ``photos/``, a copy of it; ``labels.csv``, the captions that are
    true of them; ``coco.json``, the same as annotations; ``questions.csv``, a question about each
    with its answer; ``vqa.csv``, ``questions.json`` and ``annotations.json``, the same in the form
    of the VQA evaluation; ``labels.txt``, choices; ``products.csv`` and ``vqa.parquet``, tables
    with columns for prompts.
    """
    (folder / "sample_images").symlink_to(SAMPLES)
    shutil.copytree(SAMPLES, folder / "photos")
    _table(folder / "labels.csv", ("file_name", "caption"), list(CAPTIONS.items()))
    asked = [
        (name, "is there a cat?", "yes" if "cat" in text.split(" and ")[0] else "no")
        for name, text in CAPTIONS.items()
    ]
    _table(folder / "questions.csv", ("file_name", "question", "answer"), asked)
    numbered = [(name, question, str(n)) for n, (name, question, _) in enumerate(asked, 1)]
    _table(folder / "vqa.csv", ("file_name", "question", "question_id"), numbered)
    (folder / "labels.txt").write_text("a cow\na boat\na car\n", encoding="utf-8")
    names = [f"photos/{name}" for name in CAPTIONS]
    rows = [(name, "red", Path(name).stem, str(n), "1.50") for n, name in enumerate(names)]
    _table(folder / "products.csv", ("file_name", "brand", "title", "sku", "price"), rows)
    columns = {"file_name": names, "question": ["what is in the picture?"] * len(names)}
    choices = {each: [f"{each} {Path(name).stem}" for name in names] for each in "abcd"}
    pq.write_table(pa.table(columns | choices), folder / "vqa.parquet")
    images = [{"id": n, "file_name": name} for n, name in enumerate(CAPTIONS, 1)]
    captions = [
        {"id": n, "image_id": n, "caption": text} for n, text in enumerate(CAPTIONS.values(), 1)
    ]
    _json(folder / "coco.json", {"images": images, "annotations": captions})
    questions = [{"question_id": n, "question": text} for n, (_, text, _) in enumerate(asked, 1)]
    _json(folder / "questions.json", {"questions": questions})
    answers = [
        {"question_id": n, "answers": [{"answer": answer}] * 10, "answer_type": "yes/no"}
        for n, (_, _, answer) in enumerate(asked, 1)
    ]
    _json(folder / "annotations.json", {"annotations": answers})


def _archives(folder: Path) -> None:
    """``scans/*.tif``, ``shards/*.tar`` with texts beside the images, ``last-run``, an old file."""
    for name in ("scans", "shards", "sample"):
        (folder / name).mkdir()
    for number, name in enumerate(("cats.png", "night.png"), 1):
        image = Image.open(SAMPLES / name).convert("RGB")
        image.save(folder / f"scans/{number}.tif")
        image.save(folder / f"sample/{number}.jpg")
        _json(folder / f"sample/{number}.json", {"url": f"https://host.example/{name}"})
        (folder / f"sample/{number}.txt").write_text(CAPTIONS[name], encoding="utf-8")
    with tarfile.open(folder / "shards/000000.tar", "w") as archive:
        for path in sorted((folder / "sample").iterdir()):
            archive.add(path, path.name)
    (folder / "last-run").touch()
    os.utime(folder / "last-run", (0, 0))


def _adapters(folder: Path) -> None:
    """``my-lora/`` and ``style/``, adapters of PEFT for ``tiny``."""
    from blip2cli.model.checkpoint.embedded import embedded_path
    from tests.adapters import Q_PROJ, adapter, low_rank

    base = embedded_path("tiny")
    for seed, name in enumerate(("my-lora", "style")):
        weights = low_rank(base, Q_PROJ, file="language.safetensors", seed=seed)
        adapter(folder / name, base, weights)


def _labelled_pictures(folder: Path) -> None:
    """``labelled/`` and ``archive/`` with their tables, as the tutorial draws them."""
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=300)


def _export(folder: Path) -> None:
    """``export.json``, what Label Studio gives back of the questions."""
    with (folder / "questions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    tasks = []
    for row in rows:
        right = {"type": "choices", "from_name": "answer", "value": {"choices": [row["answer"]]}}
        data = {key: row[key] for key in ("file_name", "question")}
        tasks.append({"data": data, "annotations": [{"result": [right]}]})
    _json(folder / "export.json", tasks)


# What a mark may ask for: ``<!-- run: with adapters -->``.
MORE: dict[str, Callable[[Path], None]] = {
    "adapters": _adapters,
    "an export": _export,
    "archives": _archives,
    "labelled pictures": _labelled_pictures,
    "the benchmarks": lambda folder: (folder / "benchmarks").symlink_to(ROOT / "benchmarks"),
}


def _table(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
