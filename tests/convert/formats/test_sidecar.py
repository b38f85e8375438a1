"""Text files beside images, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blip2cli.errors import OptionError, OutputError, SourceError
from tests.convert.helpers import NAMES, captions, convert, draw, read_rows, write_rows


def texts(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().decode()
        for path in folder.rglob("*")
        if path.suffix in (".txt", ".caption")
    }


@pytest.mark.parametrize("suffix", [None, ".txt", ".caption"])
def test_each_image_gets_a_line_beside_it(suffix: str | None, tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    source = write_rows(tmp_path / "c.jsonl", captions())
    convert(source, root, write_as="sidecar", sidecar_suffix=suffix, prefix="photo: ", suffix="!")
    end = suffix or ".txt"
    assert texts(root) == {
        f"COCO_val2014_000000000012{end}": "photo: a fort!\n",
        f"farm/two.cows_7{end}": "photo: two cows!\n",
        f"x 33{end}": "photo: ein Stück!\n",
    }
    convert(root, tmp_path / "back.jsonl", read_as="sidecar", prefix="photo: ", suffix="!")
    back = {row["file_name"]: row["caption"] for row in read_rows(tmp_path / "back.jsonl")}
    assert back == dict(zip(NAMES, ("a fort", "two cows", "ein Stück"), strict=True))


def test_existing_files_are_never_replaced_silently(tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    source = write_rows(tmp_path / "c.jsonl", captions())
    (root / "x 33.txt").write_text("by hand")
    with pytest.raises(OutputError, match=r"1 of the files are there already: x 33.txt; add ov"):
        convert(source, root, write_as="sidecar")
    assert texts(root) == {"x 33.txt": "by hand"}
    convert(source, root, write_as="sidecar", overwrite=True)
    assert texts(root)["x 33.txt"] == "ein Stück\n"


def test_no_empty_files_are_written(tmp_path: Path) -> None:
    rows = captions()
    rows[0]["caption"], rows[1]["caption"] = None, " \n\0"
    done = convert(write_rows(tmp_path / "c.jsonl", rows), tmp_path / "o", write_as="sidecar")
    assert texts(tmp_path / "o") == {"x 33.txt": "ein Stück\n"}
    assert done.notes == [f"2 without a text have no file: {NAMES[0]}, {NAMES[1]}."]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=20))
def test_any_text_is_one_line(text: str, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "c.jsonl", [captions()[0] | {"caption": text}])
    (tmp_path / "o").mkdir(exist_ok=True)
    for path in (tmp_path / "o").glob("*.txt"):
        path.unlink()
    convert(source, tmp_path / "o", write_as="sidecar")
    for written in texts(tmp_path / "o").values():
        assert written.endswith("\n")
        assert len(written.splitlines()) == 1
        assert written.strip()
        assert "".join(written.split()) == "".join(
            c for c in "".join(text.split()) if ord(c) >= 32 and ord(c) != 127
        )


def test_two_images_do_not_share_a_file(tmp_path: Path) -> None:
    rows = [captions()[0] | {"file_name": name} for name in ("a.jpg", "a.png")]
    source = write_rows(tmp_path / "c.jsonl", rows)
    with pytest.raises(SourceError, match=r"'a.png' would share 'a.txt'"):
        convert(source, tmp_path / "o", write_as="sidecar")
    assert not (tmp_path / "o").exists()


def test_names_that_are_not_utf_8_keep_their_bytes(tmp_path: Path) -> None:
    rows = [captions()[0] | {"file_name": "caf\udce9.jpg"}]
    convert(write_rows(tmp_path / "c.jsonl", rows), tmp_path / "o", write_as="sidecar")
    (tmp_path / "o" / "caf\udce9.jpg").write_bytes(b"")
    convert(tmp_path / "o", tmp_path / "b.jsonl")
    assert read_rows(tmp_path / "b.jsonl") == [{"file_name": "caf\\udce9.jpg", "caption": "a fort"}]


def test_sidecars_away_from_their_images(tmp_path: Path) -> None:
    root = draw(tmp_path / "photos")
    convert(write_rows(tmp_path / "c.jsonl", captions()), tmp_path / "o", write_as="sidecar")
    done = convert(tmp_path / "o", tmp_path / "without_image.jsonl")
    assert {row["file_name"] for row in read_rows(tmp_path / "without_image.jsonl")} == {
        name.rpartition(".")[0] for name in NAMES
    }
    assert "3 have no image beside them" in done.notes[0]
    convert(tmp_path / "o", tmp_path / "found.jsonl", image_root=str(root))
    assert {row["file_name"] for row in read_rows(tmp_path / "found.jsonl")} == set(NAMES)


def test_two_kinds_of_sidecars_are_distinguished(tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "a.txt").write_text("\ufeffone\r\n", encoding="utf-8")
    (tmp_path / "o" / "a.caption").write_text("two")
    with pytest.raises(SourceError, match="choose one with sidecar_suffix"):
        convert(tmp_path / "o", tmp_path / "b.jsonl")
    convert(tmp_path / "o", tmp_path / "b.jsonl", sidecar_suffix=".txt")
    assert read_rows(tmp_path / "b.jsonl") == [{"file_name": "a", "caption": "one"}]


def test_a_prefix_of_two_lines_is_refused(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "c.jsonl", captions())
    for option in ("prefix", "suffix"):
        with pytest.raises(OptionError, match=f"{option} holds a line break"):
            convert(source, tmp_path / "o", write_as="sidecar", **{option: "a\nb"})
