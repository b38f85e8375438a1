"""``blip2cli report``: what a page holds, from which files, and what it leaves out."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from blip2cli.cli.app import call
from blip2cli.options import PageOptions, SourceOptions
from blip2cli.report.find_images import ImagePlaces
from blip2cli.report.make import ONE_FILE_ROWS, make_page
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import Settings, write_settings
from blip2cli.sources import open_sources
from blip2cli.sources.identity import place
from tests.evaluate.helpers import coco, write
from tests.report.helpers import Page, pictures, read_page, report, rows_file

# Markup, an end of a script, directions, control bytes, line separators, what HTML calls a comment.
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\u202egnp.exe\u2066",
    "\x00\x07\x1b[31m\x7f",
    "a\u2028b\u2029c ]]> & \" ' ` ${x} $title",
)


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def captions(folder: Path, count: int = 3, name: str = "c.jsonl", **more: Any) -> Path:
    names = pictures(folder / "photos", count)
    rows = ({"file_name": n, "width": 64, "height": 48, "caption": f"picture {n}", "logprob": -0.5}
            for n in names)  # fmt: skip
    return rows_file(folder / name, *(row | more for row in rows))


def sheet(page: Page, number: int = 0) -> Image.Image:
    uri = page.run["sprites"]["sheets"][number]
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def test_a_page_holds_rows_pictures_and_what_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = captions(tmp_path)
    rows_file(
        tmp_path / "c.jsonl.errors",
        {"file_name": "bad.jpg", "error_type": "truncated", "message": "It ends early."},
    )
    assert report(out, "--image-root", "photos", "-o", "page.html") == 0
    assert "4 rows and 3 pictures into page.html" in capsys.readouterr().err
    page = read_page(tmp_path / "page.html")
    assert page.run["task"] == "caption"
    assert page.run["outputs"][0]["name"] == "c.jsonl"
    assert page.run["outputs"][0]["errors"] == [["truncated", 1]]
    assert page.run["notes"] == ["1 of 4 pictures were not found."]
    assert page.rows["image"] == [0, 1, 2, -1]
    assert page.named("bad.jpg")["error_type"] == "truncated"
    assert page.named("0001.png")["text"] == "picture 0001.png"
    assert page.rows["confidence"][0] == pytest.approx(np.exp(-0.5), abs=1e-5)
    assert page.extra["width"] == [64, 64, 64, None]
    assert page.images == {"width": [64] * 3, "height": [48] * 3}
    assert sheet(page).size == (960, 192)
    assert not (tmp_path / "page_files").exists()
    # Nothing says where this was made.
    assert str(tmp_path) not in page.html
    assert place(str(out)) not in page.html  # a digest of a path: one can guess what it is of
    assert os.uname().nodename not in page.run["outputs"][0].values()
    again = tmp_path / "again.html"
    assert report(out, "--image-root", "photos", "-o", again) == 0
    assert again.read_bytes() == (tmp_path / "page.html").read_bytes()


@pytest.mark.parametrize("kind", ["c.jsonl.gz", "c.parquet"])
def test_every_form_of_an_output_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    out = captions(tmp_path)
    assert call(["convert", str(out), kind]) == 0
    assert report(out, "-o", "a.html", "--no-images") == 0
    assert report(kind, "-o", "b.html", "--no-images") == 0
    first, second = read_page(tmp_path / "a.html"), read_page(tmp_path / "b.html")
    assert (first.rows, first.extra) == (second.rows, second.extra)
    assert second.run["sprites"] is None
    assert "image" not in second.rows


def test_pictures_come_from_archives_as_the_run_read_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = captions(tmp_path)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted((tmp_path / "photos").iterdir()):
            archive.write(path, path.name)
    assert report(out, "--source", "photos.zip", "-o", "page.html") == 0
    assert read_page(tmp_path / "page.html").rows["image"] == [0, 1, 2]
    capsys.readouterr()
    assert report(out, "--source", "none.zip", "-o", "page.html") == 2
    assert "There is no file or folder 'none.zip'" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert report(out, "--image-root", "empty", "-o", "page.html") == 2
    assert "None of the 3 pictures is there" in capsys.readouterr().err
    assert read_page(tmp_path / "page.html").rows["image"] == [0, 1, 2]


def test_rows_of_no_image_are_a_page(tmp_path: Path) -> None:
    pq.write_table(pa.table({"file_name": [], "caption": []}), tmp_path / "c.parquet")
    (tmp_path / "photos").mkdir()
    assert report("c.parquet", "--image-root", "photos", "-o", "page.html") == 0
    assert read_page(tmp_path / "page.html").rows["file_name"] == []


def test_settings_name_no_place_of_the_machine(tmp_path: Path) -> None:
    out = captions(tmp_path)
    settings = {
        "model": "/home/me/models/mine", "rank_with": "~/itm", "offload": "../disk", "dtype": "int8"
    }  # fmt: skip
    with write_settings(OutputPaths.of(str(out)), Settings(settings), os.stat(out).st_ino):
        pass
    assert report(out, "--no-images", "-o", "page.html") == 0
    shown = dict(read_page(tmp_path / "page.html").run["outputs"][0]["settings"])
    assert shown == {"model": "mine", "rank with": "itm", "offload": "disk", "dtype": "int8"}


def test_a_name_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    names = "../0000.png", str(tmp_path / "0000.png"), "a/../../0000.png", "in.png"
    pictures(tmp_path / "photos", 1)
    os.rename(tmp_path / "photos" / "0000.png", tmp_path / "photos" / "in.png")
    out = rows_file(tmp_path / "c.jsonl", *({"file_name": n, "caption": "x"} for n in names))
    assert report(out, "--image-root", "photos", "-o", "page.html") == 0
    assert read_page(tmp_path / "page.html").rows["image"] == [-1, -1, -1, 0]


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    surrogate = "caf\udce9.jpg"
    rows = [
        {"file_name": f"{n}{text}", "question": text, "question_id": "1", "answer": text,
         "flag": text, "logprob": -1.0, "note": [text]}
        for n, text in enumerate(HOSTILE)
    ]  # fmt: skip
    rows.append({"file_name": surrogate, "question": "?", "answer": "x"})
    out = rows_file(tmp_path / "<b>&.jsonl", *rows)
    rows_file(
        tmp_path / "<b>&.jsonl.errors",
        *({"file_name": f"f{text}", "error_type": text, "message": text} for text in HOSTILE),
    )
    assert report(out, "-o", "page.html") == 0
    page = read_page(tmp_path / "page.html")
    harmless = captions(tmp_path)
    assert report(harmless, "-o", "plain.html", "--no-images") == 0
    plain = read_page(tmp_path / "plain.html")
    # What stands outside of data is what stands in any page: no tag more, and none with a name.
    for tag in ("<script", "</script", "<img", "<!--", "<b>"):
        assert page.html.count(tag) == plain.html.count(tag), tag
    assert page.rows["text"][: len(HOSTILE)] == list(HOSTILE)
    assert page.named("caf\\udce9.jpg")["text"] == "x"
    assert page.extra["note"][0] == [HOSTILE[0]]


def test_several_questions_share_a_picture_and_texts_a_source(tmp_path: Path) -> None:
    (name,) = pictures(tmp_path / "photos", 1)
    common = {"file_name": name, "answer": "x", "logprob": -1.0}
    out = rows_file(
        tmp_path / "a.jsonl",
        *(common | {"question": f"{n}?", "question_id": str(n)} for n in range(3)),
    )
    assert report(out, "--image-root", "photos", "-o", "page.html") == 0
    page = read_page(tmp_path / "page.html")
    assert page.rows["image"] == [0, 0, 0]
    assert page.run["task"] == "ask"


def test_captions_with_references_have_metrics_and_a_score_each(tmp_path: Path) -> None:
    texts = {n: [f"a cat number {n} sits on the mat", f"cat {n}"] for n in range(1, 8)}
    against = write(tmp_path / "coco.json", coco(texts))
    out = rows_file(
        tmp_path / "c.jsonl",
        *({"file_name": f"{n}.jpg", "caption": texts[n][0] if n > 1 else "a dog"} for n in texts),
    )
    assert report(out, "--against", against, "-o", "page.html") == 0
    page = read_page(tmp_path / "page.html")
    assert {"bleu4", "rouge", "cider"} <= {one["name"] for one in page.run["metrics"]}
    assert page.run["score"] == "cider"
    assert page.rows["score"][0] < min(page.rows["score"][1:])
    assert page.rows["references"][1] == texts[2]
    assert page.run["reliability"] == []


def test_answers_with_references_have_a_reliability_diagram(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    rows, labels = [], []
    for n in range(300):
        share = float(source.uniform(0.5, 1))
        right = bool(source.random() < share)
        common = {"file_name": f"{n}.jpg", "question": "is it?", "question_id": "1"}
        shares = [
            {"choice": "yes", "probability": share},
            {"choice": "no", "probability": 1 - share},
        ]
        rows.append(common | {"answer": "yes", "probabilities": shares, "flag": ""})
        labels.append(common | {"answer": "yes" if right else "no"})
    rows[0] |= {"flag": "abstained", "answer": None, "guess": "yes"}
    out = rows_file(tmp_path / "a.jsonl", *rows)
    against = rows_file(tmp_path / "l.jsonl", *labels)
    assert report(out, "--against", against, "-o", "page.html") == 0
    page = read_page(tmp_path / "page.html")
    bins = page.run["reliability"]
    assert sum(one["count"] for one in bins) == 300
    assert len(bins) == 15
    assert [one["confidence"] for one in bins] == sorted(one["confidence"] for one in bins)
    assert page.run["ece"] < 0.15
    assert page.rows["score"][0] is None
    assert set(page.rows["score"][1:]) == {0.0, 1.0}


def test_two_outputs_stand_side_by_side(tmp_path: Path) -> None:
    first = rows_file(
        tmp_path / "a.jsonl",
        *({"file_name": n, "question": "?", "question_id": "1", "answer": n} for n in "abc"),
        {"file_name": "a", "question": "!", "question_id": "2", "answer": "second"},
    )
    second = rows_file(
        tmp_path / "b.jsonl",
        *({"file_name": n, "question": "?", "question_id": "9", "answer": n * 2} for n in "cbd"),
        {"file_name": "a", "question": "!", "question_id": "2", "answer": "other"},
    )
    labels = rows_file(
        tmp_path / "l.jsonl",
        *({"file_name": n, "question": "?", "answer": n} for n in "abcd"),
        {"file_name": "e", "question": "?", "answer": ""},
    )
    assert report(first, "--compare", second, "--against", labels, "-o", "page.html") == 0
    page = read_page(tmp_path / "page.html")
    assert [one["name"] for one in page.run["outputs"]] == ["a.jsonl", "b.jsonl"]
    assert page.rows["file_name"] == ["a", "b", "c", "a", "d"]
    assert page.rows["side"] == [1, 0, 0, 0, 2]
    assert page.rows["text"] == ["a", "b", "c", "second", None]
    assert sum("have no text" in note for note in page.run["notes"]) == 1
    assert page.rows["other_text"] == [None, "bb", "cc", "other", "dd"]
    assert page.rows["other_score"][1:3] == [0.0, 0.0]
    exact = next(one for one in page.run["metrics"] if one["name"] == "exact")
    assert (exact["value"], exact["other"]["value"], exact["difference"]["value"]) == (1, 0, 1)


def test_embeddings_have_neighbours_and_no_vectors(tmp_path: Path) -> None:
    names = pictures(tmp_path / "photos", 4)
    vectors = pa.array([[1, 0], [1, 0.1], [0, 1], [0, 1.1]], pa.list_(pa.float32(), 2))
    pq.write_table(
        pa.table({"file_name": names, "embedding": vectors, "kind": ["image"] * 4}),
        tmp_path / "v.parquet",
    )
    assert report("v.parquet", "--image-root", "photos", "-o", "page.html") == 0
    page = read_page(tmp_path / "page.html")
    assert page.run["task"] == "embed"
    assert [near[0][0] for near in page.rows["neighbours"]] == [1, 0, 3, 2]
    assert "embedding" not in page.extra


def test_many_rows_have_their_pictures_in_a_folder(tmp_path: Path) -> None:
    out = captions(tmp_path, 30, name="ü c.jsonl")
    few = out.read_text()
    out.write_text(few * (ONE_FILE_ROWS // 30 + 1))
    assert report(out, "--image-root", "photos", "-o", "ü 100%.html") == 0
    page = read_page(tmp_path / "ü 100%.html")
    folder = tmp_path / "ü 100%_files"
    sheets = page.run["sprites"]["sheets"]
    assert all(name.startswith("%C3%BC%20100%25_files/sheet-") for name in sheets)
    assert sorted(os.listdir(folder)) == sorted(name.rpartition("/")[2] for name in sheets)
    assert len(sheets) == 2
    # A run over the folder does not take them for images.
    refs = open_sources(SourceOptions((str(tmp_path),)))
    assert {ref.file_name.partition("/")[0] for ref in refs} == {"photos"}
    # A page in one file again: the folder was ours, and goes.
    out.write_text(few)
    assert report(out, "--image-root", "photos", "-o", "ü 100%.html") == 0
    assert not folder.exists()


def test_pictures_of_one_file_get_coarser_rather_than_the_file_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 96, 96, 3), np.uint8)
    names = pictures(tmp_path / "photos", len(noise))
    for name, pixels in zip(names, noise, strict=True):
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    out = rows_file(tmp_path / "c.jsonl", *({"file_name": n, "caption": n} for n in names))
    monkeypatch.setattr("blip2cli.report.make.cell_size", lambda count: 96)  # as of 3,000
    options = PageOptions((str(out),), image_root="photos", out="page.html")
    make_page(options, ImagePlaces.of(options), one_file_bytes=400_000)
    assert len(read_page(tmp_path / "page.html").images["width"]) == 60
    assert (tmp_path / "page.html").stat().st_size <= 400_000
    # Where texts leave nothing for pictures, they are files.
    make_page(options, ImagePlaces.of(options), one_file_bytes=150_000)
    assert (tmp_path / "page_files").is_dir()


def test_the_summary_of_the_run_says_where_time_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = captions(tmp_path)
    summary = tmp_path / "s.json"
    summary.write_text(json.dumps({
        "seconds": 11.0, "load_seconds": 1.0, "read_share": 0.1, "model_share": 0.7,
        "write_share": 0.0, "already": 2,
    }))  # fmt: skip
    assert report(out, "--no-images", "--run-summary", summary, "-o", "page.html") == 0
    output = read_page(tmp_path / "page.html").run["outputs"][0]
    assert output["seconds"] == {"read": 1.0, "model": 7.0, "write": 0.0}
    assert ["done before", 2] in output["counts"]
    summary.write_text("[]")
    assert report(out, "--no-images", "--run-summary", summary, "-o", "page.html") == 2
    assert "no summary of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--image-root", "photos", "--source", "photos"], "leave one of the two out"),
        (["--no-images", "--image-root", "photos"], "leave one of the two out"),
        (["--image-column", "x"], "is about --source"),
        (["--image-root", "nowhere"], "is not a folder"),
        (["--image-root", "s3://bucket"], "give it as --source"),
    ],
)
def test_options_that_do_not_fit(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(captions(tmp_path), "-o", "page.html", *arguments) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_rows_are_packed_and_small(tmp_path: Path) -> None:
    out = captions(tmp_path, 100)
    assert report(out, "--no-images", "-o", "page.html") == 0
    page = read_page(tmp_path / "page.html")
    assert len(gzip.compress(json.dumps(page.rows).encode())) < 5000


def test_verdicts_of_a_page_are_references(tmp_path: Path) -> None:
    out = captions(tmp_path)
    verdicts = rows_file(
        tmp_path / "v.jsonl",
        {"file_name": "0000.png", "text": "picture 0000.png", "verdict": "right",
         "label": "picture 0000.png", "output": "x"},
        {"file_name": "0001.png", "text": "picture 0001.png", "verdict": "wrong", "label": None,
         "output": "x"},
        {"file_name": "0002.png", "text": "another text", "verdict": "wrong", "label": None,
         "output": "x"},
    )  # fmt: skip
    assert report(out, "--against", verdicts, "--no-images", "-o", "page.html") == 0
    page = read_page(tmp_path / "page.html")
    assert page.rows["score"] == [1.0, 0.0, None]
    assert page.run["reliability"] == [
        {"confidence": pytest.approx(np.exp(-0.5), abs=1e-4), "accuracy": a, "count": 1}
        for a in (0.5, 0.5)
    ]
