"""A folder of Parquet parts on an object store, through whatever happens to its requests."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from blip2cli.errors import ImageError, OutputError, RunError
from blip2cli.options import OutputOptions
from blip2cli.sinks import open_failure_list, read_output
from blip2cli.sinks.check_output import check_output
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import marks
from blip2cli.storage.object_requests import ObjectFolder, split_url
from tests.sinks.helpers import FOLDER_SETTINGS, row
from tests.sinks.object_outputs import again, content, hidden, new, put, repeat_without_pauses, rows
from tests.store_proxy import StoreProxy


@pytest.fixture
def out(bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an output."""
    repeat_without_pauses(monkeypatch)
    return f"{bucket}/some/out/"


def unbroken(folder: Path, count: int) -> dict[str, bytes]:
    """The files of a local folder with these rows."""
    sink = new(f"{folder}/unbroken/")
    sink.write([row(n) for n in range(count)])
    sink.close()
    return {path.name: path.read_bytes() for path in (folder / "unbroken").iterdir()}


def test_parts_are_put_complete_and_once(out: str, proxy: StoreProxy, tmp_path: Path) -> None:
    sink = new(out)
    put(sink, 0, 7)
    assert content(out) == {}
    assert hidden(out) == ["meta.json", f"rows-{FOLDER_SETTINGS.token[:8]}-{0:012d}"]
    put(sink, 7, 43)
    sink.close()
    assert content(out) == unbroken(tmp_path, 43)
    assert hidden(out) == ["meta.json"]
    assert marks(OutputPaths.of(out))["finished"] is True
    # Two hidden ones, five parts, settings when they begin and when the run has ended.
    assert proxy.count("PUT") == 2 + 5 + 2


@pytest.mark.external
@pytest.mark.parametrize("seed", range(8))
def test_bytes_depend_on_the_rows_alone(
    out: str, proxy: StoreProxy, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    count = rng.choice((30, 31, 39))
    faults = ("before", "after", "busy", "conflict", None, None, None, None)

    def rule(method: str, path: str) -> str | None:
        return rng.choice(faults) if method in ("PUT", "DELETE") else None

    proxy.rule = rule
    cuts = sorted({0, count, *rng.choices(range(count), k=rng.randint(1, 5))})
    sink = new(out)
    for first, last in itertools.pairwise(cuts):
        put(sink, first, last)
        if rng.random() < 0.5:
            sink = again(out)
        elif rng.random() < 0.3:  # new images join a finished output
            sink.close()
            sink = again(out)
    sink.close()
    assert content(out) == unbroken(tmp_path, count)
    assert hidden(out) == ["meta.json"]


@pytest.mark.external
def test_rows_that_no_listing_shows_are_found(out: str, proxy: StoreProxy, tmp_path: Path) -> None:
    proxy.rule = lambda method, path: "lag" if "list-type" in path else None
    sink = new(out)
    assert content(out) == {}
    assert hidden(out) == []
    done = 0
    while done < 36:
        put(sink, done, done + 4)
        resumed = read_output(OutputOptions(out, resume=True), lambda name: 1)
        assert resumed is not None
        assert resumed.rows.rows in (done + 4, (done + 4) // 10 * 10)  # run again, not lost
        done = resumed.rows.rows
        sink = again(out)
    proxy.rule = lambda method, path: None
    sink = again(out)  # with all that was listed by no listing
    put(sink, done, 41)
    sink.close()
    again(out).close()  # removes rows that had been put twice
    assert content(out) == unbroken(tmp_path, 41)
    assert hidden(out) == ["meta.json"]


def test_of_two_runs_at_once_one_ends(out: str) -> None:
    put(new(out), 0, 4)
    first, second, third = again(out), again(out), again(out)
    second.write([row(4)])  # it has looked at what is there
    put(first, 4, 6)
    with pytest.raises(RunError, match=r"another run has put 'rows-.*' there meanwhile.; 4 rows"):
        second.commit()
    with pytest.raises(RunError, match=r"something else changed it since this run read it"):
        put(third, 4, 6)
    first.write([row(n) for n in range(6, 15)])
    first.close()
    assert rows(out) == [row(n) for n in range(15)]


def test_puts_whose_answer_is_lost_are_ours(out: str, proxy: StoreProxy, tmp_path: Path) -> None:
    sink = new(out)
    proxy.on_puts(*[fault for fault in ("after", "before", "busy") for _ in range(2)])
    put(sink, 0, 11)
    sink = again(out)
    put(sink, 11, 14)
    sink.close()
    assert content(out) == unbroken(tmp_path, 14)
    assert hidden(out) == ["meta.json"]


def test_an_older_output_stays_until_the_new_one_has_rows(out: str, tmp_path: Path) -> None:
    sink = new(out)
    put(sink, 0, 25)
    sink.close()
    with pytest.raises(OutputError, match="exists already; add resume to go on"):
        check_output(OutputOptions(out))
    check_output(OutputOptions(out, overwrite=True))
    sink = new(out, replace=True)
    put(sink, 50, 55)
    assert rows(out) == [row(n) for n in range(25)]
    put(sink, 55, 62)
    assert rows(out) == [row(n) for n in range(50, 60)]
    sink.close()
    assert rows(out) == [row(n) for n in range(50, 62)]


def test_a_part_that_is_taken_away_is_noticed(out: str) -> None:
    sink = new(out)
    put(sink, 0, 13)
    ObjectFolder(out).remove("part-00000.parquet")
    with pytest.raises(RunError, match=r"part-00000.parquet', which holds rows of .* was moved or"):
        put(sink, 13, 14)


def test_damage_is_a_sentence(out: str) -> None:
    sink, folder = new(out), ObjectFolder(out)
    put(sink, 0, 23)
    sink.close()
    last = folder.read("part-00002.parquet") or b""
    folder.replace("part-00002.parquet", last[:-20])
    with pytest.raises(OutputError, match=r"its part 'part-00002.parquet' cannot be read"):
        again(out)
    folder.replace("part-00002.parquet", last)
    folder.remove("part-00001.parquet")
    with pytest.raises(OutputError, match=r"its part 'part-00001.parquet' is missing"):
        again(out)


def test_what_the_store_refuses_to_show_says_what_to_do(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(new(out), 0, 1)

    def denied(*args: object, **more: object) -> None:  # moto grants everything
        raise PermissionError("Access Denied")

    monkeypatch.setattr(ObjectFolder, "_read", denied)
    with pytest.raises(OutputError, match=r"cannot be read \(it may not be read\); check AWS_AC"):
        again(out)


def test_places_that_are_refused(out: str, bucket: str) -> None:
    for url, message in (
        (out[:-1], rf"is one object, .* write '{out}'"),
        (f"{bucket}/x.parquet", rf"is one object, .* write '{bucket}/x/'"),
        (f"{bucket}/", rf"is a whole bucket; name a folder in it, such as '{bucket}/captions/'"),
        ("sftp://host/out/", "could replace one another's rows; name a folder of an object sto"),
        ("s3://key:s3cr3t@bucket/out/", "holds a password"),
    ):
        with pytest.raises(OutputError, match=message) as caught:
            check_output(OutputOptions(url))
        assert "s3cr3t" not in str(caught.value)
    ObjectFolder(out).create("part-00000.parquet", b"somebody's")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputError, match=r"objects of others, such as 'part-00000\.parquet'"):
            check_output(OutputOptions(out, **options))


def test_failures_are_an_object(out: str, proxy: StoreProxy) -> None:
    options = OutputOptions(out)
    sink, failures = new(out), open_failure_list(options)
    put(sink, 0, 1)
    for number in range(30):
        failures.write(f"{number}.png", ImageError("decode_error", "It is broken."))
    url = OutputPaths.of(out).errors
    folder, name = split_url(url)
    assert proxy.count("PUT", ".errors") == 1  # not one a failure
    failures.commit()
    assert len((folder.read(name) or b"").splitlines()) == 30
    put(sink, 1, 2)
    failures.write("lost.png", ImageError("decode_error", "Its line is lost in a kill."))
    failures._file.close()  # type: ignore[attr-defined]

    resumed = read_output(OutputOptions(out, retry_errors=True), lambda name: 1)
    assert resumed is not None
    assert resumed.failures is not None
    assert len(resumed.failures.failed) == 30
    failures = open_failure_list(OutputOptions(out, retry_errors=True), resumed.failures)
    failures.succeeded("3.png")
    failures.write("4.png", ImageError("decode_error", "It is still broken."))
    failures.write("new.png", ImageError("decode_error", "It is broken, too."))
    failures.close()
    lines = (folder.read(name) or b"").splitlines()
    assert len(lines) == 30
    assert b"still" in lines[-2]
    assert not any(b'"3.png"' in line for line in lines)
    resumed = read_output(OutputOptions(out, retry_errors=True), lambda name: 1)
    assert resumed is not None
    failures = open_failure_list(OutputOptions(out, retry_errors=True), resumed.failures)
    for line in lines:
        failures.succeeded(line.split(b'"')[3].decode())
    failures.close()
    assert not folder.exists(name)
