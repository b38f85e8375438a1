"""Input files for the command lines: images, damaged ones, lists, archives, questions, texts."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SAMPLES = Path(__file__).parents[2] / "sample_images"
PHOTOS = ("breakfast.jpg", "cats.png", "farm/cows.jpg", "harbor.webp", "sideways.jpg")
_MADE = 1_700_000_000  # modification time of everything, in seconds since 1970


def make_material(folder: Path) -> None:
    """Fill ``folder``; the same bytes and times whenever it is called."""
    _images(folder)
    _manifests(folder)
    _archives(folder)
    _questions(folder)
    _texts(folder)
    _mistaken(folder)
    for path in folder.rglob("*"):
        os.utime(path, (_MADE, _MADE), follow_symlinks=False)


def _images(folder: Path) -> None:
    for name in PHOTOS:
        (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SAMPLES / name, folder / "photos" / name)
    (folder / "two").mkdir()
    for name in ("cats.png", "night.png"):
        shutil.copyfile(SAMPLES / name, folder / "two" / name)
    mixed = folder / "mixed"
    mixed.mkdir()
    for name in ("cats.png", "night.png"):
        shutil.copyfile(SAMPLES / name, mixed / name)
    (mixed / "cut.jpg").write_bytes((SAMPLES / "breakfast.jpg").read_bytes()[:3000])
    (mixed / "nothing.png").write_bytes(b"")
    (mixed / "words.gif").write_text("The file has moved.\n")
    (mixed / "drawing.png").write_text('<?xml version="1.0"?>\n<svg/>')
    (mixed / "gone.png").symlink_to("was-here.png")


def _manifests(folder: Path) -> None:
    rows = [
        {"file_name": f"photos/{name}", "sku": 100 + i, "price": i / 4, "label": f"no {i}, “x”"}
        for i, name in enumerate(PHOTOS)
    ]
    _write(folder / "list.txt", "".join(f"{row['file_name']}\n" for row in rows))
    _write(folder / "list0.txt", "".join(f"{row['file_name']}\0" for row in rows))
    lines = [f'{r["file_name"]},{r["sku"]},{r["price"]},"{r["label"]}"\n' for r in rows]
    _write(folder / "list.csv", "file_name,sku,price,label\n" + "".join(lines))
    _write(folder / "list.tsv", "path\tsku\n" + "".join(f"{r['file_name']}\t7\n" for r in rows))
    _write(folder / "list.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    _write(folder / "missing.txt", "photos/cats.png\nphotos/none.png\n../outside.png\n")
    pq.write_table(pa.Table.from_pylist(rows), folder / "list.parquet")
    images = [
        {
            "image": {"bytes": (SAMPLES / name).read_bytes(), "path": Path(name).name},
            "label": i,
            "note": f"note {i}",
        }
        for i, name in enumerate(PHOTOS[:3])
    ]
    pq.write_table(pa.Table.from_pylist(images), folder / "images.parquet")


def _archives(folder: Path) -> None:
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for i, name in enumerate(PHOTOS[:3]):
            key, suffix = f"{i:04}", Path(name).suffix
            _add(tar, key + suffix, (SAMPLES / name).read_bytes())
            _add(tar, key + ".txt", f"text {i}".encode())
            _add(tar, key + ".json", json.dumps({"url": f"https://e.org/{i}", "n": i}).encode())
    (folder / "cut.tar").write_bytes((folder / "shard.tar").read_bytes()[:30_000])
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for name in PHOTOS[:3]:
            info = zipfile.ZipInfo(name, (2024, 1, 2, 3, 4, 6))
            archive.writestr(info, (SAMPLES / name).read_bytes())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), _MADE
    tar.addfile(info, io.BytesIO(data))


def _questions(folder: Path) -> None:
    _write(folder / "questions.txt", "how many cats are there?\nwhat color is the background?\n")
    table = [
        {"file_name": "cats.png", "question": "how many cats are there?", "choices": "one|two"},
        {"file_name": "cats.png", "question": "is there a pizza?", "question_id": "p"},
        {"file_name": "farm/cows.jpg", "question": "what is in the picture?"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in table)
    _write(folder / "questions.jsonl", lines)
    _write(
        folder / "questions.csv",
        "file_name,question,question_id,choices\n"
        'cats.png,how many cats are there?,7,"[""one"", ""two""]"\n'
        "harbor.webp,is there a dog?,8,yes|no\n",
    )
    _write(folder / "strangers.jsonl", '{"file_name": "none.png", "question": "what is it?"}\n')
    _write(folder / "choices.txt", "a cat\na dog\n\nthree cows\n")


def _texts(folder: Path) -> None:
    _write(folder / "texts.txt", "two cats\nthree cows on a brown background\n")
    _write(folder / "texts.jsonl", '{"text": "a boat", "n": 1}\n{"text": "a fish", "n": 2}\n')
    _write(folder / "texts.csv", "text\na boat\na fish\n")


def _mistaken(folder: Path) -> None:
    (folder / "empty").mkdir()
    _write(folder / "bad.jsonl", '{"file_name": "photos/cats.png"}\n{"file_name": \n')
    _write(folder / "bad.csv", "name,size\nx,1\n")
    _write(folder / "bad.parquet", "no parquet")
    _write(folder / "bad.zip", "no zip")
    _write(folder / "bad.tar", "no tar" * 200)
    _write(folder / "bad.pth", "no checkpoint")
    _write(folder / "blank.txt", "\n\n")
    _write(folder / "one.txt", "only one\n")
    _write(folder / "twice.txt", "cat\ndog\ncat\n")
    (folder / "latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    _write(folder / "noid.json", '{"cats.png": 1}')
    _write(folder / "twice.jsonl", '{"file_name": "a", "caption": "x"}\n' * 2)
    _write(folder / "rows.jsonl", '{"a": 1}\n')


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())
