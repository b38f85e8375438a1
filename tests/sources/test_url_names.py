from __future__ import annotations

from pathlib import Path

import pytest

from blip2cli.options import SourceOptions
from blip2cli.sources import open_sources
from blip2cli.sources.url_names import UrlNames, same_place, unsigned_query, url_name


@pytest.mark.parametrize(
    ("url", "base", "name"),
    [
        ("https://h/a/x.png?X-Amz-Signature=S#f", "", "h/a/x.png"),
        ("https://me:pw@h:8080/x.png", "", "h:8080/x.png"),
        ("https://token@h/x@y.png", "", "h/x@y.png"),
        ("https://h/a/b/x.png?sig=S", "https://h/a", "b/x.png"),
        ("s3://key:secret@bucket/x.png", "", "bucket/x.png"),
        ("s3://key:se/cr/et@bucket/x@y.png", "", "bucket/x@y.png"),
        ("https://me:p/w@h:80/x@y.png", "", "h:80/x@y.png"),
        ("s3://bucket/what?.png", "", "bucket/what?.png"),
        ("s3://bucket/x.png?versionId=3", "", "bucket/x.png"),
        ("abfs://box@account/x.png", "", "box@account/x.png"),
    ],
)
def test_names_hold_no_query_and_no_user(url: str, base: str, name: str) -> None:
    assert url_name(url, base) == name


def test_a_signature_is_no_part_of_what_a_url_names() -> None:
    assert unsigned_query("https://h/x?id=1&X-Amz-Date=2&sig=3&size=4&se=5") == "id=1&size=4"
    assert same_place("https://h/x?id=1&sig=2", "https://me@h/x?id=1&sig=3")
    assert not same_place("https://h/x?id=1", "https://h/x?id=2")
    assert not same_place("h/x?id=1", "h/x?id=2")


def test_urls_that_differ_in_the_query_get_names_of_their_own() -> None:
    names = UrlNames()
    urls = [f"https://h/x.png?id={n}&sig={s}" for n, s in ((1, "a"), (2, "b"), (1, "c"), (2, "d"))]
    first, second, *again = (names.unique("h/x.png", url) for url in urls)
    assert first == "h/x.png"
    assert second.startswith("h/x.")
    assert second.endswith(".png")
    assert second != first
    assert again == [first, second]


def test_a_manifest_of_signed_urls_gives_away_nothing(tmp_path: Path) -> None:
    urls = [
        "https://h/x.png?sig=s3cr3t",
        "https://me:s3cr3t@h/x.png?id=2",
        "https://h/x.png?sig=other",
        "https://h/y.png?token=s3cr3t",
    ]
    (tmp_path / "m.txt").write_text("\n".join(urls))
    for allowed in (True, False):
        options = SourceOptions((str(tmp_path / "m.txt"),), absolute_paths=allowed)
        names = [ref.file_name for ref in open_sources(options)]
        assert "s3cr3t" not in str(names)
        assert len(names) == 3
