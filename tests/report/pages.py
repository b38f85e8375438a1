"""Pages of drawn rows, made as ``report`` makes them, of any size and with any text in them."""

from __future__ import annotations

import base64
import io
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from blip2cli.report.page import assemble

CELL, PER_LINE, PER_SHEET = 96, 10, 100
INSIDE = 3000  # rows up to which pictures lie inside the page
TOKEN = "5f0c7d1ab2"

THINGS = ("cat", "dog", "red bus", "small boat", "piece of cake", "blue umbrella", "guitar")
PLACES = ("on a table", "in the snow", "under a tree", "beside a house", "on a yellow background")


def caption(draw: random.Random) -> str:
    things = " and ".join(f"a {thing}" for thing in draw.sample(THINGS, draw.randint(1, 3)))
    return f"{things} {draw.choice(PLACES)}"


def captions(count: int, seed: int = 0) -> dict[str, list[Any]]:
    """Columns of ``count`` captioned images: one in fifty failed, one in twenty is flagged."""
    draw = random.Random(seed)
    failed = [i % 50 == 49 for i in range(count)]
    texts = [caption(draw) for _ in range(count)]
    confidence = [round(draw.betavariate(6, 1.5), 4) for _ in range(count)]
    flags = [
        draw.choice(("repetition", "echo", "retried")) if i % 20 == 7 else "" for i in range(count)
    ]
    return {
        "file_name": [f"photos/{i % 7}/{i:06d}.jpg" for i in range(count)],
        "image": [-1 if bad else i for i, bad in enumerate(failed)],
        "text": [None if bad else text for bad, text in zip(failed, texts, strict=True)],
        "confidence": [None if bad else p for bad, p in zip(failed, confidence, strict=True)],
        "logprob": [
            None if bad else round(p - 1, 4) for bad, p in zip(failed, confidence, strict=True)
        ],
        "flag": [None if bad else flag for bad, flag in zip(failed, flags, strict=True)],
        "error_type": ["DecodeError" if bad else None for bad in failed],
        "error": ["image file is truncated" if bad else None for bad in failed],
    }


def answers(images: int, seed: int = 0) -> dict[str, list[Any]]:
    """Columns of three questions an image, with choices and scores; some abstained."""
    draw = random.Random(seed)
    questions = ("is there a cat?", "how many boats are there?", "what color is the umbrella?")
    choices = (("yes", "no"), ("one", "two", "three"), ("blue", "red", "green", "yellow"))
    rows: dict[str, list[Any]] = {name: [] for name in ANSWER_COLUMNS}
    for image in range(images):
        for number, question in enumerate(questions):
            weights = [draw.random() ** 4 + 0.01 for _ in choices[number]]
            shares = sorted(
                ([choice, round(weight / sum(weights), 4)] for choice, weight in
                 zip(choices[number], weights, strict=True)),
                key=lambda pair: -pair[1],
            )  # fmt: skip
            best, confidence = shares[0]
            abstained = confidence < 0.45
            values = (
                f"scenes/{image:04d}.png", image, question, str(number + 1),
                None if abstained else best, best, confidence,
                round(0.9 + draw.random() / 10, 4), "abstained" if abstained else "", shares,
                [best if draw.random() < confidence else "none", best],
                0.0 if abstained else round(draw.random(), 3),
            )  # fmt: skip
            for name, value in zip(ANSWER_COLUMNS, values, strict=True):
                rows[name].append(value)
    return rows


ANSWER_COLUMNS = (
    "file_name", "image", "question", "question_id", "text", "guess", "confidence", "choice_mass",
    "flag", "probabilities", "references", "score",
)  # fmt: skip


def vectors(count: int, seed: int = 0) -> dict[str, list[Any]]:
    """Columns of embedded images, each with ten neighbours."""
    draw = random.Random(seed)
    near = [sorted(draw.sample(range(count), 11)) for _ in range(count)]
    return {
        "file_name": [f"photos/{i:04d}.jpg" for i in range(count)],
        "image": list(range(count)),
        "neighbours": [
            [[other, round(0.98 - 0.03 * k, 4)] for k, other in enumerate(one) if other != i][:10]
            for i, one in enumerate(near)
        ],
    }


def with_second(rows: dict[str, list[Any]], seed: int = 1) -> dict[str, list[Any]]:
    """The same rows beside those of a second output: every third text differs in a word."""
    draw = random.Random(seed)

    def changed(text: str | None, i: int) -> str | None:
        if text is None or i % 3:
            return text
        return f"{text.split(' ', 1)[0]} very {text.split(' ', 1)[-1]}"

    count = len(rows["file_name"])
    return rows | {
        "other_text": [changed(text, i) for i, text in enumerate(rows["text"])],
        "other_confidence": [round(draw.random(), 4) for _ in range(count)],
        "side": [0] * count,
    }


def write_page(
    path: Path,
    rows: Mapping[str, list[Any]],
    task: str = "caption",
    pictures: bool = True,
    **run: Any,
) -> Path:
    """The page of ``rows`` at ``path``; its sheets lie beside it where there are many."""
    images = max((*rows.get("image", []), -1)) + 1 if pictures else 0
    sizes = [(CELL, CELL * 3 // 4) if i % 3 else (CELL * 2 // 3, CELL) for i in range(images)]
    compared = "other_text" in rows
    about = {
        "format": 1,
        "version": "0.2.0",
        "task": task,
        "outputs": [output(f"{task}s.jsonl"), *([output("second.jsonl")] if compared else [])],
        "confidence": "mean probability of a token (not calibrated)",
        "metrics": [],
        "reliability": [],
        "ece": None,
        "notes": [],
        "licences": [],
        "sprites": {
            "cell": CELL,
            "per_line": PER_LINE,
            "per_sheet": PER_SHEET,
            "sheets": sheets(images, path),
        }
        if images
        else None,
    } | run
    table = {
        "rows": dict(rows),
        "images": {"width": [w for w, _ in sizes], "height": [h for _, h in sizes]},
        "extra": [],
    }
    path.write_text(assemble(f"{task}s.jsonl", about, table), encoding="utf-8")
    return path


def output(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "token": TOKEN,
        "settings": [["model", "tiny"], ["dtype", "float32"], ["prompt", "a photo of"]],
        "counts": [["rows", 2000], ["images", 2000], ["failed", 40]],
        "seconds": {"read": 2.4, "model": 31.0, "write": 0.4},
        "errors": [["DecodeError", 38], ["SourceError", 2]],
    }


def sheets(images: int, path: Path) -> list[str]:
    """A data URI or a file for every hundred images; four are drawn, and used again and again."""
    drawn = [draw_sheet(seed) for seed in range(4)]
    count = -(-images // PER_SHEET)
    if images <= INSIDE:
        texts = [f"data:image/webp;base64,{base64.b64encode(sheet).decode()}" for sheet in drawn]
        return [texts[i % 4] for i in range(count)]
    folder = path.with_name(f"{path.stem}_files")
    folder.mkdir()
    names = [f"sheet-{i:04d}.webp" for i in range(count)]
    for i, name in enumerate(names):
        if i < 4:
            (folder / name).write_bytes(drawn[i])
        else:
            os.link(folder / names[i % 4], folder / name)
    return [f"{folder.name}/{name}" for name in names]


def draw_sheet(seed: int) -> bytes:
    draw = random.Random(seed)
    sheet = Image.new("RGB", (CELL * PER_LINE, CELL * PER_SHEET // PER_LINE), "white")
    pen = ImageDraw.Draw(sheet)
    for place in range(PER_SHEET):
        x, y = place % PER_LINE * CELL, place // PER_LINE * CELL
        sky, thing = (tuple(draw.randrange(60, 240) for _ in range(3)) for _ in range(2))
        pen.rectangle((x, y, x + CELL - 1, y + CELL - 1), fill=sky)
        size = draw.randrange(20, 44)
        pen.ellipse((x + 8, y + 12, x + 8 + size, y + 12 + size), fill=thing)
    held = io.BytesIO()
    sheet.save(held, "WEBP", quality=60)
    return held.getvalue()
