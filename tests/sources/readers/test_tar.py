from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest

from blip2cli.errors import OptionError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import Listing, open_sources
from blip2cli.sources.base import FailedRef, ImageRef
from blip2cli.sources.readers.tar import MAX_MEMBERS, MAX_WAITING_BYTES
from tests.sources.helpers import failure, refs

Members = dict[str, bytes]
SAMPLES = {
    "000000.jpg": b"first",
    "000000.json": b'{"id": 7, "score": 1, "tags": ["a"]}',
    "000000.txt": b"a caption\n",
    "000001.txt": "zwölf".encode(),
    "000001.json": b'{"id": 8, "score": 0.5}',
    "000001.left.png": b"second",
    "000001.right.png": b"third",
    "000002.jpg": b"fourth",
}


def write(file: Path, members: Members | list[tuple[str, bytes]], mode: str = "w") -> Path:
    pairs = members.items() if isinstance(members, dict) else members
    with tarfile.open(file, mode, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for name, data in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


def names(found: list[ImageRef]) -> list[str]:
    return [ref.file_name for ref in found]


FORMS = {"s.tar": "w", "s.tar.gz": "w:gz", "s.tgz": "w:gz", "packed.tar": "w:gz"}


@pytest.mark.parametrize("form", FORMS)
def test_images_of_a_shard_in_their_order(form: str, tmp_path: Path) -> None:
    found = refs(write(tmp_path / form, SAMPLES, FORMS[form]))
    assert names(found) == ["000000.jpg", "000001.left.png", "000001.right.png", "000002.jpg"]
    travelled = [pickle.loads(pickle.dumps(ref)) for ref in reversed(found)]
    assert [ref.read() for ref in travelled] == [b"fourth", b"third", b"second", b"first"]


@pytest.mark.parametrize("form", ["s.tar", "s.tgz"])
def test_fields_of_a_sample_are_carried_along(form: str, tmp_path: Path) -> None:
    shard = write(tmp_path / form, SAMPLES, FORMS[form])
    options = SourceOptions((str(shard),), keep=("txt", "id", "score", "tags"))
    assert [c.type for c in Listing.open(options).columns] == ["string", "int", "float", "string"]
    right = ("zwölf", 8, 0.5, None)
    carried = [ref.carried for ref in open_sources(options)]
    assert carried == [("a caption", 7, 1.0, '["a"]'), right, right, (None,) * 4]
    with pytest.raises(OptionError, match=r"keep name: .* it has .*id, score"):
        refs(shard, keep=("name",))


def test_shards_put_their_names_before_those_of_members(tmp_path: Path) -> None:
    write(tmp_path / "shard-0.tar", {"./a.png": b"0"})
    write(tmp_path / "shard-1.tar", {"a.png": b"1"})
    assert names(refs(tmp_path / "shard-0.tar")) == ["a.png"]
    for sources in ([tmp_path / "shard-0.tar", tmp_path / "shard-1.tar"], [f"{tmp_path}/*.tar"]):
        found = refs(*sources)
        assert names(found) == ["shard-0.tar/a.png", "shard-1.tar/a.png"]
        assert [ref.read() for ref in found] == [b"0", b"1"]
    (tmp_path / "b.png").write_bytes(b"2")
    assert names(refs(tmp_path)) == ["b.png"]  # a folder is not searched for archives


def test_only_regular_members_and_no_files_of_macos(tmp_path: Path) -> None:
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w") as tar:
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"special{kind.decode()}.png")
            info.type = kind
            tar.addfile(info)
        folder = tarfile.TarInfo("folder.png")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name in ("._a.png", ".hidden/a.png", "__MACOSX/a.png", "a.svg", "PNG", "b.PNG"):
            tar.addfile(tarfile.TarInfo(name))
    assert names(refs(shard)) == ["b.PNG"]


def test_names_are_made_unique_and_safe(tmp_path: Path) -> None:
    members = [("/etc/a.png", b"0"), ("../../etc/a.png", b"1"), ("x/./../b.png", b"2")]
    long = "d/" * 120 + "é" * 60 + ".png"
    found = refs(write(tmp_path / "s.tar", [*members, ("caf\udce9.png", b"3"), (long, b"4")]))
    assert names(found) == ["etc/a.png", "etc/a-00000001.png", "x/b.png", "caf\udce9.png", long]
    assert [ref.read() for ref in found] == [b"0", b"1", b"2", b"3", b"4"]


def test_broken_fields_fail_only_their_sample(tmp_path: Path) -> None:
    members = SAMPLES | {"000001.json": b"{", "000002.json": b"[1]"}
    found = refs(write(tmp_path / "s.tar", members), keep=("id",))
    assert [ref.carried for ref in found] == [(7,), (None,), (None,), (None,)]
    assert found[0].read() == b"first"
    assert [failure(ref) for ref in found[1:]] == ["bad_metadata"] * 3
    assert len(refs(tmp_path / "s.tar")) == 4  # no fields are carried


def test_large_images_of_a_compressed_shard_are_read_by_whoever_loads_them(tmp_path: Path) -> None:
    members = {f"{n}.png": bytes([n]) * 300_000 for n in range(3)}
    for form, mode in (("s.tgz", "w:gz"), ("s.tar.bz2", "w:bz2")):
        found = refs(write(tmp_path / form, members, mode))
        assert max(len(pickle.dumps(ref)) for ref in found) < 1000
        assert [ref.read() for ref in reversed(found)] == list(reversed(members.values()))


def test_a_sample_of_any_number_of_members(tmp_path: Path) -> None:
    images = {f"a.{n}.png": b"x" for n in range(MAX_MEMBERS + 7)}
    members = {"a.json": b'{"id": 1}'} | images
    found = refs(write(tmp_path / "s.tar", members), keep=("id",))
    assert [ref.carried for ref in found] == [(1,)] * (MAX_MEMBERS - 1) + [(None,)] * 8


def test_fields_go_to_no_other_sample(tmp_path: Path) -> None:
    twice = [("0.jpg", b"a"), ("0.json", b'{"id": 1}'), ("0.jpg", b"b"), ("0.json", b'{"id": 2}')]
    found = refs(write(tmp_path / "twice.tar", twice), keep=("id",))
    assert [(ref.read(), ref.carried) for ref in found] == [(b"a", (1,)), (b"b", (2,))]
    macos = [("._0.jpg", b"x"), ("0.jpg", b"a"), ("._0.json", b"x"), ("0.json", b'{"id": 1}')]
    found = refs(write(tmp_path / "macos.tar", macos), keep=("id",))
    assert [ref.carried for ref in found] == [(1,)]
    apart = [(f"{n}.json", b'{"id": 1}') for n in range(3)] + [(f"{n}.jpg", b"a") for n in range(3)]
    with pytest.raises(OptionError, match="files of one sample stand side by side"):
        refs(write(tmp_path / "apart.tar", apart), keep=("id",))


@pytest.mark.parametrize("form", ["s.tar", "s.tgz"])
def test_cut_off_anywhere(form: str, tmp_path: Path) -> None:
    images = {f"{n}.png": bytes([65 + n]) * 700 for n in range(4)}
    whole = write(tmp_path / form, images, FORMS[form]).read_bytes()
    complete = []
    for cut in range(0, len(whole), 1 if form == "s.tgz" else 64):
        (tmp_path / form).write_bytes(whole[:cut])
        try:
            found = refs(tmp_path / form)
        except SourceError as error:
            assert "is no tar archive" in str(error)  # noqa: PT017 - cut within the first header
            continue
        if found[-1].file_name != form:
            assert [ref.read() for ref in found] == list(images.values())
            complete.append(cut)
            continue
        *good, lost = found
        assert (lost.file_name, failure(lost)) == (form, "truncated_archive")
        assert [ref.read() for ref in good] == list(images.values())[: len(good)]
        if form == "s.tar":
            assert len(good) == sum(cut >= n * 1536 + 512 + 700 for n in range(4))
    # Behind the end mark come only zeros: nothing is lost with them.
    assert complete
    if form == "s.tar":
        assert complete[0] == 4 * 1536 + 512


def test_what_is_lost_is_named_by_its_shard(tmp_path: Path) -> None:
    for number in range(2):
        shard = write(tmp_path / f"{number}.tar", SAMPLES)
        shard.write_bytes(shard.read_bytes()[:2500])
    found = refs(f"{tmp_path}/*.tar", keep=("id",))
    lost = [ref.file_name for ref in found if isinstance(ref, FailedRef)]
    assert lost == ["0.tar", "1.tar"]


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    shard = write(tmp_path / "s.tar", {f"{n}.png": b"x" for n in range(3)})
    data = bytearray(shard.read_bytes())
    data[1024:1030] = b"\xff" * 6
    shard.write_bytes(data)
    first, lost = refs(shard)
    assert first.read() == b"x"
    assert failure(lost) == "truncated_archive"


@pytest.mark.parametrize("form", ["s.tar", "s.tgz"])
def test_a_member_that_is_too_large(form: str, tmp_path: Path) -> None:
    most = MAX_WAITING_BYTES + 1  # smaller ones of compressed archives are read when it is listed
    members = {"a.png": b"a" * (most + 1), "b.png": b"b" * most}
    large, fine = refs(write(tmp_path / form, members, FORMS[form]))
    assert failure(large, most=most) == "too_large"
    assert fine.read(most=most) == members["b.png"]


def test_a_header_that_would_fill_the_memory(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "s.tgz", "wb") as file:
        small = tarfile.TarInfo("a.png")
        file.write(small.tobuf())
        bomb = tarfile.TarInfo("././@LongLink")
        bomb.type, bomb.size = tarfile.GNUTYPE_LONGNAME, 1 << 32
        file.write(bomb.tobuf(tarfile.GNU_FORMAT))
    good, lost = refs(tmp_path / "s.tgz")
    assert (good.read(), failure(lost)) == (b"", "truncated_archive")


def test_an_archive_that_changed_since(tmp_path: Path) -> None:
    shard = write(tmp_path / "s.tar", SAMPLES)
    found = refs(shard)
    assert found[0].read() == b"first"
    shard.write_bytes(b"short")
    assert failure(found[0]) == "truncated_archive"
    shard.unlink()
    assert failure(found[0]) == "missing"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_tar(form: str, tmp_path: Path) -> None:
    for data in (b"", b"no tar at all", b"x" * 5000, b"\x1f\x8b", gzip.compress(b"no tar")):
        (tmp_path / form).write_bytes(data)
        with pytest.raises(SourceError, match="is no tar archive"):
            open_sources(SourceOptions((str(tmp_path / form),)))


def test_an_archive_without_images(tmp_path: Path) -> None:
    for members in ({}, {"a.txt": b"x"}):
        write(tmp_path / "s.tar", members)
        with pytest.raises(SourceError, match="holds no images"):
            refs(tmp_path / "s.tar")


def test_listing_a_plain_tar_does_not_read_its_images(tmp_path: Path) -> None:
    # A hole in the file: 3 GB that take no space and would take seconds to read.
    shard = tmp_path / "s.tar"
    with open(shard, "wb") as file:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = 1 << 30
            file.write(info.tobuf())
            file.seek(1 << 30, 1)
        file.write(bytes(1024))
    assert names(refs(shard)) == ["0.png", "1.png", "2.png"]


def test_a_sample_is_described_before_or_after_its_image(tmp_path: Path) -> None:
    described = json.dumps({"id": 1}).encode()
    for order in (["a.json", "a.png"], ["a.png", "a.json"]):
        members = {name: described if name.endswith("json") else b"x" for name in order}
        (ref,) = refs(write(tmp_path / "s.tar", members), keep=("id",))
        assert ref.carried == (1,)
