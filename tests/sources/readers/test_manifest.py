from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blip2cli.errors import ImageError, OptionError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import open_sources
from blip2cli.storage.text_encoding import to_json, to_utf8
from tests.sources.helpers import failure, refs, write_table

Tree = Callable[..., Path]
Names = Callable[..., list[str]]


LISTS = {
    "m.txt": "b.png\n./sub//a.png\n\nb.png\r\nsub/../c.png\n",
    "m.csv": 'id,file_name\n1,b.png\n2,./sub//a.png\n3,b.png\n4,"sub/../c.png"\n',
    "m.tsv": "path\tid\nb.png\t1\nsub/a.png\t2\nc.png\t3\n",
    "m.jsonl": '{"image": "b.png"}\n\n{"id": 2, "image": "sub/a.png"}\n{"image": "c.png"}',
}


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", LISTS)
def test_lists_are_read_in_their_order_each_image_once(
    name: str, bom: bytes, tree: Tree, names: Names
) -> None:
    root = tree("b.png", "sub/a.png", "c.png", "other.png")
    (root / name).write_bytes(bom + LISTS[name].encode())
    assert names(root / name) == ["b.png", "sub/a.png", "c.png"]
    assert [ref.read() for ref in refs(root / name)] == [b"", b"", b""]


def test_a_parquet_manifest(tree: Tree, names: Names) -> None:
    root = tree("b.png", "a.png")
    plain = write_table(root / "m.parquet", id=[1, 2, 3], path=["b.png", "a.png", "./b.png"])
    assert names(plain) == ["b.png", "a.png"]
    coded = pa.array(["a.png", "b.png", "a.png"]).dictionary_encode()
    assert names(write_table(root / "d.parquet", image=coded)) == ["a.png", "b.png"]


def test_the_column_can_be_named(tree: Tree, names: Names) -> None:
    root = tree("a.png", "b.png")
    (root / "m.csv").write_text("path,photo\na.png,b.png\n")
    assert names(root / "m.csv") == ["a.png"]
    assert names(root / "m.csv", image_column="photo") == ["b.png"]
    table = write_table(root / "m.parquet", path=["a.png"], photo=["b.png"])
    assert names(table, image_column="photo") == ["b.png"]
    with pytest.raises(SourceError, match="no column foto; it has path, photo"):
        names(root / "m.csv", image_column="foto")


def test_missing_files_are_failures_of_their_image(tree: Tree) -> None:
    root = tree("a.png")
    (root / "m.txt").write_text("gone.png\na.png\nsub\n")
    (root / "sub").mkdir()
    first, second, third = refs(root / "m.txt")
    assert failure(first) == "missing"
    assert second.read() == b""
    assert failure(third) == "not_a_file"


OUTSIDE = ("../secret.png", "sub/../../secret.png", "/etc/passwd", "//etc/passwd", "..", "s3://b/k")


@pytest.mark.parametrize("spelled", OUTSIDE)
@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl", "parquet"])
def test_a_manifest_cannot_lead_out_of_its_folder(spelled: str, suffix: str, tree: Tree) -> None:
    root = tree("secret.png", "in/a.png") / "in"
    manifest = root / f"m.{suffix}"
    if suffix == "parquet":
        write_table(manifest, file_name=[spelled, "a.png"])
    elif suffix == "jsonl":
        manifest.write_text(f'{{"file_name": "{spelled}"}}\n{{"file_name": "a.png"}}\n')
    else:
        manifest.write_text(("path\n" if suffix == "csv" else "") + f"{spelled}\na.png\n")
    refused, good = refs(manifest)
    assert failure(refused) == "outside_source"
    assert good.read() == b""


def test_absolute_paths_allow_other_folders(tree: Tree) -> None:
    root = tree("up.png", "far/x.png", "in/a.png")
    (root / "in" / "m.txt").write_text(f"../up.png\n{root}/far/x.png\n{root}/in/a.png\na.png\n")
    found = refs(root / "in" / "m.txt", absolute_paths=True)
    below = str(root).lstrip("/")
    assert [r.file_name for r in found] == [f"{below}/up.png", f"{below}/far/x.png", "a.png"]
    assert [r.path for r in found] == [f"{root}/up.png", f"{root}/far/x.png", f"{root}/in/a.png"]
    assert [r.read() for r in found] == [b"", b"", b""]


def test_absolute_paths_do_not_let_names_clash(tree: Tree) -> None:
    root = tree("x.png")
    inner = root / "in"
    same = inner / str(root).lstrip("/") / "x.png"
    same.parent.mkdir(parents=True)
    same.write_bytes(b"another")
    (inner / "m.txt").write_text(f"{root}/x.png\n{str(root).lstrip('/')}/x.png\n")
    first, second = refs(inner / "m.txt", absolute_paths=True)
    assert first.read() == b""
    assert failure(second) == "name_clash"


def test_links_in_the_folder_are_followed(tree: Tree) -> None:
    root = tree("store/a.png", "in/x")
    (root / "in" / "linked").symlink_to(root / "store")
    (root / "in" / "m.txt").write_text("linked/a.png\nlinked/../b.png\n")
    first, second = refs(root / "in" / "m.txt")
    assert (first.file_name, first.read()) == ("linked/a.png", b"")
    # As text, not as the system would: else the link would lead out of the folder.
    assert second.path == f"{root}/in/b.png"


def test_names_start_at_the_manifests_folder(
    tree: Tree, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree("a/x.png", "b/x.png", "b/y.png")
    (root / "a" / "m.txt").write_text("x.png\n")
    (root / "b" / "m.txt").write_text("y.png\nx.png\n")
    assert names(root / "b" / "m.txt") == ["y.png", "x.png"]
    both = ["a/x.png", "b/y.png", "b/x.png"]
    assert names(root / "a" / "m.txt", root / "b" / "m.txt") == both
    assert names(f"{root}/*/*.txt") == both
    assert names(root / "b", root / "b" / "m.txt") == ["x.png", "y.png"]  # each once
    monkeypatch.chdir(root / "b")
    assert names("m.txt") == ["y.png", "x.png"]


def test_an_image_in_several_manifests_of_a_glob_is_run_once(tree: Tree, names: Names) -> None:
    root = tree("x.png", "y.png")
    (root / "1.txt").write_text("y.png\nx.png\n")
    (root / "2.txt").write_text("x.png\nz.png\n")
    assert names(f"{root}/*.txt") == ["y.png", "x.png", "z.png"]


def test_a_folder_is_not_searched_for_manifests(tree: Tree, names: Names) -> None:
    root = tree("a.png")
    (root / "m.txt").write_text("other.png\n")
    assert names(root) == ["a.png"]
    assert names(f"{root}/*") == ["a.png"]


def test_the_file_of_failures_can_be_fed_back(tree: Tree, names: Names) -> None:
    root = tree("caf\udce9.png", "x.png")
    errors = b"".join(
        to_json({"file_name": name, "error_type": "truncated", "message": "It ends early."}) + b"\n"
        for name in ("x.png", "caf\udce9.png")
    )
    (root / "o.jsonl.errors").write_bytes(errors)
    found = refs(root / "o.jsonl.errors", keep=("error_type",))
    assert [ref.file_name for ref in found] == ["x.png", "caf\udce9.png"]
    assert [ref.carried for ref in found] == [("truncated", 1)] * 2
    assert found[1].read() == b""


UNUSABLE = {
    "a.csv": ("name,url\nx,y\n", "no column file_name, path or image; it has name, url"),
    "a.jsonl": ('{"file": "x"}\n', "no column file_name, path or image; it has file"),
    "twice.csv": ("path,path\nx,y\n", "two columns are called 'path'"),
    "wide.txt": ("\ufeffa.png\n", "UTF-16"),
    "empty.txt": ("", "names no image"),
    "blank.txt": ("\n\n", "names no image"),
    "empty.csv": ("", "names no image"),
    "head.csv": ("path\n", "names no image"),
    "empty.jsonl": ("\n", "names no image"),
    "fake.parquet": ("PAR1 or so", "is no Parquet file"),
    "empty.parquet": ("", "is no Parquet file"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_manifest_without_use_is_refused_at_once(name: str, tmp_path: Path) -> None:
    text, message = UNUSABLE[name]
    encoding = "utf-16-le" if name == "wide.txt" else "utf-8"
    (tmp_path / name).write_text(text, encoding=encoding)
    with pytest.raises(SourceError, match=message):
        open_sources(SourceOptions((str(tmp_path / name),)))  # not iterated


def test_a_parquet_file_without_use_names_its_columns(tmp_path: Path) -> None:
    table = write_table(tmp_path / "m.parquet", url=["x"], n=[1])
    with pytest.raises(SourceError, match=r"neither .* it has url, n\. .*image_column"):
        refs(table)
    with pytest.raises(OptionError, match=r"image_column n: .* it holds int64"):
        refs(table, image_column="n")
    with pytest.raises(OptionError, match=r"image_column x: .* no such column; it has url, n"):
        refs(table, image_column="x")


def test_a_manifest_is_read_as_images_are_requested(tmp_path: Path) -> None:
    # An endless manifest would be best; one that is cut off shows the same.
    (tmp_path / "m.jsonl").write_text("".join(f'{{"path": "{n}.png"}}\n' for n in range(5000)))
    images = open_sources(SourceOptions((str(tmp_path / "m.jsonl"),)))
    assert [next(images).file_name for _ in range(3)] == ["0.png", "1.png", "2.png"]
    (tmp_path / "m.jsonl").write_text("")
    assert sum(1 for _ in images) < 5000


# File names as a file system may hold them: anything but NUL and the slash, also bytes that are
# not UTF-8. "." and ".." are no names.
AWKWARD = st.one_of(
    st.sampled_from(
        ["-rf", "--help", "a b", " ", '"', "'", ",", "a,b", "\t", "\n", "\r\n", "é", "🐈"]
    ),
    st.text(
        st.one_of(
            st.characters(exclude_categories=("Cs",), exclude_characters="\0/"),
            st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF),
        ),
        min_size=1,
        max_size=12,
    ),
)
NAMES = st.lists(
    AWKWARD.map(lambda name: f"{name}.png"),
    min_size=1,
    max_size=8,
    unique_by=os.fsencode,
)


def as_csv(names: list[str], delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([["file_name", "n"], *([name, i] for i, name in enumerate(names))])
    return text.getvalue().encode("utf-8", "surrogateescape")


@settings(max_examples=60, deadline=None)
@given(NAMES)
def test_awkward_names_come_through_every_format(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    root = tmp_path_factory.mktemp("awkward")
    lines = [json.dumps({"file_name": name}).encode() for name in names]
    written = {
        "m.csv": as_csv(names, ","),
        "m.tsv": as_csv(names, "\t"),
        "m.jsonl": b"\n".join(lines),
        "raw.jsonl": b"\n".join(to_json({"file_name": name}) for name in names),
    }
    if not any(c in name for name in names for c in "\n\r"):
        written["m.txt"] = b"\n".join(os.fsencode(name) for name in names)
    for name, data in written.items():
        (root / name).write_bytes(data)
        assert [ref.file_name for ref in refs(root / name)] == names, name
    table = write_table(root / "m.parquet", file_name=[to_utf8(name) for name in names])
    assert [ref.file_name for ref in refs(table)] == names


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["txt", "csv", "tsv", "jsonl", "parquet"]))
def test_rubbish_is_at_worst_the_users_mistake(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
) -> None:
    manifest = tmp_path_factory.mktemp("rubbish") / f"m.{suffix}"
    manifest.write_bytes(b"path\n" + data if suffix in ("csv", "tsv") else data)
    try:
        for ref in refs(manifest):
            with pytest.raises(ImageError):
                ref.read()
    except SourceError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
