from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.sources.base import FailedRef
from tests.sources.helpers import failure, refs, write_table

Tree = Callable[..., Path]

WRONG = {
    "a.jsonl": ('{"path": "a.png"}\n{"path": \n', 2, "Not JSON"),
    "b.jsonl": ('{"path": "a.png"}\n["b.png"]\n', 2, "Expected an object"),
    "c.jsonl": ('{"path": "a.png"}\n{"file": "b.png"}\n', 2, "Its path is missing"),
    "d.jsonl": ('{"path": "a.png"}\n\n{"path": 7}\n', 3, "Its path is no text"),
    "e.jsonl": ('{"path": "a.png"}\n{"path": "b", "n": ' + "9" * 5000 + "}\n", 2, "Not to be read"),
    "f.jsonl": ('{"path": "a.png"}\n' + "[" * 100_000 + "\n", 2, "Not to be read"),
    "g.jsonl": ('{"path": "a.png"}\n{"path": "' + "b" * 20_000 + '"}\n', 2, "Its path is over"),
    "a.csv": ('path,x\na.png,1\n"b\nc",2\nd.png\n', 5, "1 cells for 2 columns"),
    "b.csv": ('path,x\na.png,1\nb.png,"2"3\n', 3, "',' expected"),
    "c.csv": ("path,x\na.png,1\n,2\n", 3, "Its path is missing or empty"),
    "a.tsv": ("path\tx\na.png\t1\nb.png\t2\t3\n", 3, "3 cells for 2 columns"),
    "a.txt": ("a.png\nb\0c\n", 2, "It holds a NUL"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_malformed_row_is_one_failure(name: str, tmp_path: Path) -> None:
    text, line, message = WRONG[name]
    good = {".jsonl": '{"path": "z.png"}\n', ".csv": "z.png,9\n", ".tsv": "z.png\t9\n"}
    (tmp_path / name).write_text(text + good.get(Path(name).suffix, "z.png\n"))
    found = refs(tmp_path / name)
    wrong = [ref for ref in found if isinstance(ref, FailedRef)]
    assert [ref.file_name for ref in wrong] == [f"{name}/{line:08d}"]
    assert failure(wrong[0]) in ("bad_row", "missing")
    assert wrong[0].message.startswith(message)
    assert [found[0].file_name, found[-1].file_name] == ["a.png", "z.png"]


def test_rows_of_a_parquet_manifest_without_a_path_are_failures(tmp_path: Path) -> None:
    found = refs(write_table(tmp_path / "m.parquet", path=["a.png", None, "", "b.png"]))
    names = ["a.png", "m.parquet/00000002", "m.parquet/00000003", "b.png"]
    assert [ref.file_name for ref in found] == names
    assert [failure(ref) for ref in found] == ["missing"] * 4


def test_rows_about_one_image_are_told_apart(tree: Tree) -> None:
    root = tree("a.png", "b.png")
    (root / "m.csv").write_text("path,sku\na.png,1\nb.png,2\na.png,3\na.png,4\n")
    (root / "n.csv").write_text("path,sku\na.png,5\n")
    apart = [("a.png", "1", 1), ("b.png", "2", 1), ("a.png", "3", 2), ("a.png", "4", 3)]

    def told(*sources: object, **options: bool) -> list[object]:
        return [(r.file_name, *r.carried) for r in refs(*sources, keep=("sku",), **options)]

    assert told(root / "m.csv") == apart
    assert told(root / "m.csv", absolute_paths=True) == apart
    both = [*apart, ("a.png", "5", 4)]
    assert told(root / "m.csv", root / "n.csv") == both
    assert told(f"{root}/*.csv") == both
    assert [(ref.file_name, ref.key) for ref in refs(root / "m.csv")] == [
        ("a.png",) * 2,
        ("b.png",) * 2,
    ]


def test_rows_of_a_list_of_failures_say_which_they_are(tree: Tree) -> None:
    root = tree("a.png", "b.png")
    rows = [
        ("a.png", 3),
        ("b.png", 1),
        ("a.png", 2),
        ("a.png", 3),
        ("b.png", "x"),
        ("b.png", 1 << 70),
    ]
    listed = [
        {"file_name": n, "error_type": "missing", "message": "", "sku": 0, "occurrence": o}
        for n, o in rows
    ]
    (root / "o.jsonl.errors").write_text("".join(json.dumps(row) + "\n" for row in listed))
    found = refs(root / "o.jsonl.errors", keep=("sku",))
    told = [("a.png", 3), ("b.png", 1), ("a.png", 2), ("b.png", 2), ("b.png", 3)]
    assert [(ref.file_name, ref.carried[1]) for ref in found] == told
    assert [ref.key for ref in refs(root / "o.jsonl.errors")] == ["a.png", "b.png"]


def test_the_home_folder_and_urls_of_files(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree("a b.png", "é.png", "~x.png")
    monkeypatch.setenv("HOME", str(root))
    urls = [f"file://{root}/a%20b.png", f"FILE://localhost{root}/%C3%A9.png", "~/a b.png", "~x.png"]
    (root / "m.txt").write_text("\n".join(urls))
    found = refs(root / "m.txt", absolute_paths=True)
    assert [ref.file_name for ref in found] == ["a b.png", "é.png", "~x.png"]
    assert [ref.read() for ref in found] == [b""] * 3
    assert [failure(ref) for ref in refs(root / "m.txt")[:2]] == ["outside_source"] * 2
