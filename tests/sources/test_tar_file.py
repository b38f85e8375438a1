from __future__ import annotations

import gzip
import io
import resource
import tarfile
from pathlib import Path

import pytest

from blip2cli.errors import SourceError
from tests.sources.helpers import failure, refs


def member(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def extended(data: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return member("header", data, kind)


END = bytes(1024)
GOOD = member("a.png")


@pytest.mark.parametrize(
    "headers",
    [
        extended(b"12 a=bcdefg\n") * 400,
        extended(b"a" * 512, tarfile.GNUTYPE_LONGNAME) * 400,
        extended(b"a" * (2 << 20), tarfile.GNUTYPE_LONGNAME),
        extended(b"30 path=" + b"a" * (2 << 20)),
        extended(b"1" * 500_000),
        member("g", b"0\n" * (1 << 20), tarfile.GNUTYPE_SPARSE)[:512] + b"\1" * 8192,
    ],
    ids=["recursion", "long names", "one long name", "attributes", "digits", "sparse"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_headers_that_would_fill_the_memory_or_the_stack_break_one_archive_off(
    headers: bytes, packed: bool, tmp_path: Path
) -> None:
    data = GOOD + headers + member("b.png") + END
    (tmp_path / "0.tar").write_bytes(gzip.compress(data, 1) if packed else data)
    (tmp_path / "1.tar").write_bytes(GOOD + END)
    found = refs(f"{tmp_path}/*.tar")
    names = [ref.file_name for ref in found]
    assert names[0] == "0.tar/a.png"
    assert names[-1] == "1.tar/a.png"
    assert "truncated_archive" in {failure(ref) for ref in found[1:-1]}


def test_a_map_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    about = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0",
        "GNU.sparse.name": "b.png", "GNU.sparse.realsize": "10",
    }  # fmt: skip
    header = tarfile.TarInfo._create_pax_generic_header(about, tarfile.XHDTYPE, "utf-8")  # type: ignore[attr-defined]
    count = 20_000_000
    sparse = tarfile.TarInfo("b.png")
    sparse.size = 2 * count
    with gzip.open(tmp_path / "s.tgz", "wb", 1) as file:
        file.write(GOOD + header + sparse.tobuf(tarfile.USTAR_FORMAT) + b"%d\n" % count)
        for _ in range(count // 1_000_000):
            file.write(b"0\n" * 1_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert [failure(ref) for ref in refs(tmp_path / "s.tgz")[1:]] == ["truncated_archive"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 60_000


def test_global_headers_do_not_gather(tmp_path: Path) -> None:
    record = b"%d comment=%s\n"
    many = b"".join(
        extended(record % (60_017, b"x" * 60_000), tarfile.XGLTYPE) + member(f"{n}.png")
        for n in range(40)
    )
    (tmp_path / "s.tar").write_bytes(many + END)
    assert len(refs(tmp_path / "s.tar")) == 40


def test_concatenated_archives_are_read_to_the_end(tmp_path: Path) -> None:
    one = io.BytesIO()
    with tarfile.open(fileobj=one, mode="w") as tar:  # padded to 10 KiB
        tar.addfile(tarfile.TarInfo("a.png"))
    data = one.getvalue() + member("b.png") + END + b"what some tools leave behind"
    for name, written in (("s.tar", data), ("s.tgz", gzip.compress(data))):
        (tmp_path / name).write_bytes(written)
        assert [ref.file_name for ref in refs(tmp_path / name)] == ["a.png", "b.png"]


def test_members_of_unknown_types_are_failures(tmp_path: Path) -> None:
    data = GOOD + member("b.png", b"x", b"M") + member("c.png", b"", b"S") + member("d.png") + END
    (tmp_path / "s.tar").write_bytes(data)
    found = refs(tmp_path / "s.tar")
    assert [ref.file_name for ref in found] == ["a.png", "b.png", "c.png", "d.png"]
    assert [failure(ref) for ref in found[1:3]] == ["read_error"] * 2


@pytest.mark.parametrize(
    ("name", "start"), [("s.tar.xz", b"\xfd7zXZ\0"), ("s.tzst", b"(\xb5/\xfd")]
)
def test_other_compressions_are_refused_by_name(name: str, start: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(start + bytes(100))
    with pytest.raises(SourceError, match=r"is compressed with .*; .* unpack it first"):
        refs(tmp_path / name)


def test_a_plain_archive_may_begin_like_bzip2(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(member("BZh9.png") + END)
    assert [ref.file_name for ref in refs(tmp_path / "s.tar")] == ["BZh9.png"]
