"""Vectors as arrays and in clip-retrieval's layout, and in those who search them."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.errors import OutputError, SourceError
from blip2cli.options import OutputOptions
from blip2cli.sinks import Column, Settings, open_sink
from tests.convert.helpers import captions, convert, in_subprocess, read_rows, vectors, write_rows


def test_an_array_and_its_keys_belong_together(tmp_path: Path) -> None:
    rows = vectors(5, 4)
    rows[2]["embedding"] = None
    source = write_rows(tmp_path / "e.jsonl", rows)
    done = convert(source, tmp_path / "v.npy")
    assert done.notes == ["Left out 1 without a vector: 00002.jpg."]
    array = np.load(tmp_path / "v.npy")
    assert array.dtype == np.float32
    good = [row for row in rows if row["embedding"] is not None]
    assert array.tolist() == [row["embedding"] for row in good]
    keys = read_rows(tmp_path / "v.keys.jsonl")
    assert [key["file_name"] for key in keys] == [row["file_name"] for row in good]
    convert(tmp_path / "v.npy", tmp_path / "back.parquet")
    back = pq.read_table(tmp_path / "back.parquet")
    assert back.column("embedding").to_pylist() == array.tolist()
    assert back.column("file_name").to_pylist() == [row["file_name"] for row in good]


def test_an_array_without_rows_loads(tmp_path: Path) -> None:
    convert(write_rows(tmp_path / "e.jsonl", vectors(1, 4)), tmp_path / "e.parquet")
    pq.write_table(pq.read_table(tmp_path / "e.parquet").slice(0, 0), tmp_path / "none.parquet")
    convert(tmp_path / "none.parquet", tmp_path / "v.npy")
    assert np.load(tmp_path / "v.npy").shape == (0, 4)


def test_keys_of_another_array_are_noticed(tmp_path: Path) -> None:
    convert(write_rows(tmp_path / "e.jsonl", vectors(5, 4)), tmp_path / "v.npy")
    for count in (4, 6):
        write_rows(tmp_path / "v.keys.jsonl", [{"file_name": f"{i}"} for i in range(count)])
        with pytest.raises(SourceError, match="do not belong together"):
            convert(tmp_path / "v.npy", tmp_path / "b.jsonl")
    (tmp_path / "v.keys.jsonl").unlink()
    with pytest.raises(SourceError, match=r"put 'v.keys.jsonl' beside it"):
        convert(tmp_path / "v.npy", tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    "array", [np.zeros(3), np.zeros((2, 2), int), np.array([{}], object), np.zeros((1, 2), "S3")]
)
def test_other_arrays_are_refused(array: np.ndarray, tmp_path: Path) -> None:  # type: ignore[type-arg]
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    write_rows(tmp_path / "v.keys.jsonl", [{"file_name": "a"}])
    with pytest.raises(SourceError, match=r"v\.npy"):
        convert(tmp_path / "v.npy", tmp_path / "b.jsonl")


@pytest.mark.parametrize("shard_size", [None, 3])
def test_the_layout_of_clip_retrieval(shard_size: int | None, tmp_path: Path) -> None:
    rows = vectors(32, 4)
    rows[5]["embedding"] = [0.0] * 4
    source = write_rows(tmp_path / "e.jsonl", rows)
    out = tmp_path / "index"
    convert(source, out, write_as="clip-retrieval", shard_size=shard_size)
    names = sorted(path.name for path in (out / "img_emb").iterdir())
    assert names == (
        ["img_emb_0.npy"]
        if shard_size is None
        else [f"img_emb_{number:02d}.npy" for number in range(11)]
    )
    arrays = [np.load(out / "img_emb" / name) for name in names]
    tables = [
        pq.read_table(
            out / "metadata" / name.replace("img_emb", "metadata").replace("npy", "parquet")
        )
        for name in names
    ]
    assert [len(array) for array in arrays] == [len(table) for table in tables]
    assert {array.dtype for array in arrays} == {np.dtype(np.float16)}
    everything = np.concatenate(arrays).astype(np.float32)
    lengths = np.linalg.norm(everything, axis=1)
    assert lengths[5] == 0
    assert np.allclose(np.delete(lengths, 5), 1, atol=2e-3)
    paths = [path for table in tables for path in table.column("image_path").to_pylist()]
    assert paths == [row["file_name"] for row in rows]
    convert(out, tmp_path / "back.jsonl")
    back = read_rows(tmp_path / "back.jsonl")
    assert [row["file_name"] for row in back] == paths
    assert [row["embedding"] for row in back] == everything.tolist()


def test_a_folder_that_holds_something_is_not_mixed_up(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "e.jsonl", vectors(3, 4))
    convert(source, tmp_path / "index", write_as="clip-retrieval")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="choose another name"):
            convert(source, tmp_path / "index", write_as="clip-retrieval", overwrite=overwrite)


def test_rows_without_vectors_are_refused(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "c.jsonl", captions())
    for out, kind in (("v.npy", None), ("index", "clip-retrieval")):
        with pytest.raises(SourceError, match="have no column embedding"):
            convert(source, tmp_path / out, write_as=kind)


def test_vectors_are_found_by_those_who_search_them(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "e.jsonl", vectors(20, 8))
    convert(source, tmp_path / "e.parquet")
    convert(source, tmp_path / "v.npy")
    code = """
import duckdb, faiss, numpy, polars
table, array = sys.argv[1:]
nearest = '''
    select other.file_name from {t} one, {t} other where one.file_name = '00007.jpg'
    order by list_distance(one.embedding, other.embedding) limit 1
'''.replace("{t}", f"'{table}'")
vectors = numpy.load(array)
index = faiss.IndexFlatL2(vectors.shape[1])
index.add(vectors)
frame = polars.read_parquet(table)
print(json.dumps([
    duckdb.sql(nearest).fetchall()[0][0],
    int(index.search(vectors[7:8], 1)[1][0][0]),
    str(frame.schema["embedding"]),
    numpy.array_equal(frame["embedding"].to_numpy(), vectors),
]))
"""
    found = in_subprocess(code, tmp_path / "e.parquet", tmp_path / "v.npy")
    assert found == ["00007.jpg", 7, "Array(Float32, shape=(8,))", True]


def test_the_examples_of_the_guide_find_what_is_nearest(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "guides" / "search.md"
    text = page.read_text(encoding="utf-8")
    python, query = re.findall(r"<!-- nearest -->\n```(?:python|sql)\n(.*?)```", text, re.DOTALL)
    rows = vectors(4, 2)
    points = [[1.0, 0.0], [0.0, 1.0], [5.0, 0.5], [-1.0, 0.0]]
    for row, name, point in zip(rows, ("farm/cows.jpg", "b", "c", "d"), points, strict=True):
        row |= {"file_name": name, "embedding": point}
    convert(write_rows(tmp_path / "e.jsonl", rows), tmp_path / "vectors.parquet")
    convert(tmp_path / "vectors.parquet", tmp_path / "vectors.npy")
    move = "import os; os.chdir(sys.argv[1])\n"
    printed = python.replace("print(", "print(json.dumps(").rstrip() + ")\n"
    assert in_subprocess(move + printed, tmp_path) == ["farm/cows.jpg", "c", "b"]
    query_code = move + "import duckdb; print(json.dumps(duckdb.sql(sys.argv[2]).fetchall()))"
    assert in_subprocess(query_code, tmp_path, query) == [["farm/cows.jpg"], ["c"], ["b"]]


def half_vectors(folder: Path, count: int = 5, size: int = 8) -> Path:
    """Rows of ``embed`` in float16 in Parquet, by our own writer."""
    options = OutputOptions(str(folder / "half.parquet"))
    columns = (Column("embedding", "embedding", size, "float16"), Column("kind", "string"))
    settings = Settings({"model": "tiny", "task": "embed", "embedding_dtype": "float16"})
    sink = open_sink(options, columns, settings, BytesIO())
    numbers = np.random.default_rng(3).standard_normal((count, size)).astype(np.float16)
    sink.write(
        [
            {"file_name": f"{n}.jpg", "width": 4, "height": 3, "embedding": v, "kind": "image"}
            for n, v in enumerate(numbers)
        ]
    )
    sink.close()
    return folder / "half.parquet"


def test_float16_vectors_stay_the_same_numbers_in_every_format(tmp_path: Path) -> None:
    source = half_vectors(tmp_path)
    kind = pq.read_schema(source).field("embedding").type
    assert kind == pa.list_(pa.float16(), 8)
    want = pq.read_table(source).column("embedding").to_pylist()
    for name in ("e.jsonl", "e.jsonl.gz", "e.parquet", "e.csv", "e.npy"):
        convert(source, tmp_path / name)
        convert(tmp_path / name, tmp_path / f"{name}.back.jsonl")
        assert [row["embedding"] for row in read_rows(tmp_path / f"{name}.back.jsonl")] == want
    assert np.load(tmp_path / "e.npy").dtype == np.float32
    assert np.load(tmp_path / "e.npy").tolist() == want
    # Back in Parquet they are float16 again, so that a run can go on with them.
    for name in ("e.jsonl", "e.parquet", "e.npy"):
        convert(tmp_path / name, tmp_path / f"{name}.again.parquet")
        assert pq.read_schema(tmp_path / f"{name}.again.parquet").field("embedding").type == kind
    assert pq.read_table(tmp_path / "e.jsonl.again.parquet").equals(pq.read_table(source))


def test_float16_vectors_in_clip_retrieval_are_normalised_in_float32(tmp_path: Path) -> None:
    source = half_vectors(tmp_path)
    convert(source, tmp_path / "index", write_as="clip-retrieval")
    array = np.load(tmp_path / "index/img_emb/img_emb_0.npy")
    want = np.array(pq.read_table(source).column("embedding").to_pylist(), np.float32)
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    assert array.dtype == np.float16
    assert np.array_equal(array, want.astype(np.float16))


def test_vectors_of_texts_need_no_file_name(tmp_path: Path) -> None:
    rows = [{"text": f"a {n}", "embedding": [0.5, n], "kind": "projection"} for n in range(3)]
    source = write_rows(tmp_path / "t.jsonl", rows)
    convert(source, tmp_path / "t.parquet")
    convert(tmp_path / "t.parquet", tmp_path / "t.npy")
    assert np.load(tmp_path / "t.npy").tolist() == [[0.5, 0], [0.5, 1], [0.5, 2]]
    assert [row["text"] for row in read_rows(tmp_path / "t.keys.jsonl")] == ["a 0", "a 1", "a 2"]
    with pytest.raises(SourceError, match="no column file_name, which clip-retrieval needs"):
        convert(source, tmp_path / "index", write_as="clip-retrieval")
