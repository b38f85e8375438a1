"""Shares that are no output together are refused, with a sentence why."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from blip2cli.convert.verify import verify_all
from blip2cli.errors import SourceError
from blip2cli.options import DecodeOptions
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sources.shard import shard_of
from blip2cli.tasks.caption import CaptionTask
from tests.convert.helpers import convert
from tests.convert.shares import ASK, SHORT, Label, shares


def test_what_is_missing_doubled_or_other_is_refused(photos: Path, label: Label) -> None:
    pattern = shares(label, 8, ".jsonl", ("photos",))
    os.rename("out-3-of-8.jsonl", "moved.jsonl")
    with pytest.raises(SourceError, match="not complete: share 3 of 8 is missing"):
        convert(pattern, "merged.jsonl")
    os.remove("out-5-of-8.jsonl")
    with pytest.raises(SourceError, match=r"shares 3, 5 of 8 are missing.* allow_missing"):
        convert(pattern, "merged.jsonl")
    *_, together = verify_all([pattern])
    assert (together.exit_code, str(together)[:47]) == (
        1, "not complete: shares 3, 5 of 8 are missing",
    )  # fmt: skip
    done = convert(pattern, "merged.jsonl", allow_missing=True)
    assert "The output is not complete: shares 3, 5 of 8 are missing." in done.notes
    summary = label(("photos",), "merged.jsonl", output={"resume": True})  # the rest, as one run
    assert summary.already + summary.done + summary.failed == 14
    assert not os.path.exists("moved.jsonl.errors")


def test_doubled_shares_are_refused(photos: Path, label: Label) -> None:
    pattern = shares(label, 2, ".parquet", ("photos",))
    shutil.copy("out-1-of-2.parquet", "out-copy.parquet")
    with pytest.raises(SourceError, match="are both share 1/2; leave one out"):
        convert(pattern, "merged.parquet")
    assert "are both share 1/2" in str([*verify_all([pattern])][-1])
    label(("photos",), "other.parquet")
    with pytest.raises(SourceError, match=r"other\.parquet' is no share"):
        convert("out-1-of-2.parquet", "out-2-of-2.parquet", "other.parquet", "merged.parquet")
    assert not os.path.exists("merged.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": CaptionTask(decode=DecodeOptions(max_new_tokens=4))}, "max_new_tokens 4, not 3"),
        ({"task": ASK}, "with the command ask, not caption"),
        ({"output": {"errors": "inline"}}, "errors inline, not file"),
        ({"shard": "2/3"}, "is share 1/2, and .* is share 2/3"),
        ({"sources": ("other",)}, "from images in another place.* moved_source"),
        ({"sources": ("list.txt",)}, "with the column ordinal"),
        ({"limit": 4}, "with limit 4, not unset"),
        ({"exclude": ("a/*", "b*")}, r"with exclude 'a/\*', 'b\*', not unset"),
    ],
)
def test_shares_of_different_settings_are_refused(
    photos: Path, label: Label, change: dict[str, Any], message: str
) -> None:
    shutil.copytree(photos, "other")
    (photos / "list.txt").write_text("b.png\na.png\n")
    os.link(photos / "list.txt", "list.txt")
    if change.get("sources") == ("list.txt",):
        change = {"sources": ("photos/list.txt",)}
    label(("photos",), "out-1.jsonl", "1/2")
    label(**{"sources": ("photos",), "out": "out-2.jsonl", "shard": "2/2"} | change)
    with pytest.raises(SourceError, match=message):
        convert("out-*.jsonl", "merged.jsonl")
    assert "not of one output" in str([*verify_all(["out-1.jsonl", "out-2.jsonl"])][-1])
    if change.get("sources") == ("other",):
        label(("photos",), "all.jsonl")
        convert("out-*.jsonl", "merged.jsonl", moved_source=True)
        assert Path("merged.jsonl").read_bytes() == Path("all.jsonl").read_bytes()


@pytest.mark.parametrize("shard", ["x/y", "0/2", "3/2", "1/2/3", ""])
def test_damaged_numbers_of_shares_are_no_shares(photos: Path, label: Label, shard: str) -> None:
    shares(label, 2, ".jsonl", ("photos",))
    meta = Path(".out-1-of-2.jsonl.meta.json")
    meta.write_text(meta.read_text().replace('"1/2"', f'"{shard}"'))
    with pytest.raises(SourceError, match=r"'out-1-of-2\.jsonl' is no share, or has lost"):
        convert("out-*.jsonl", "merged.jsonl")
    *_, together = verify_all(["out-*.jsonl"])
    assert str(together) == "not complete: share 1 of 2 is missing"


def test_how_many_shares_are_missing_is_said_in_short(photos: Path, label: Label) -> None:
    label(("photos",), "out.jsonl", "2/100000000")
    with pytest.raises(SourceError, match=r"shares 1, 3, .*, 11 and 99999989 more of 10{8} are"):
        convert("out*.jsonl", "merged.jsonl")


def test_shares_of_other_sources_are_refused(photos: Path, label: Label) -> None:
    for name in ("1", "2", "3"):
        shutil.make_archive(name, "tar", photos)
    tars = ("1.tar", "2.tar")
    label(tars, "out-1.jsonl", "1/2")
    for others in (tars[::-1], (*tars, "3.tar")):
        label(others, "out-2.jsonl", "2/2", output={"overwrite": True})
        with pytest.raises(SourceError, match="from other sources, or from the same ones in ano"):
            convert("out-*.jsonl", "merged.jsonl")
    label((*tars, "3.tar"), "out-1.jsonl", "1/2", output={"resume": True})
    assert convert("out-*.jsonl", "merged.jsonl").rows == 36


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_unfinished_shares_are_refused(photos: Path, label: Label, suffix: str) -> None:
    pattern = shares(label, 2, suffix, ("photos",))
    late = f"out-2-of-2{suffix}"
    os.remove(late)
    label(("photos",), late, "2/2", output={"overwrite": True})
    convert(pattern, f"merged{suffix}")
    # A run that adds rows is unfinished until it ends.
    added = next(f"{n}.png" for n in range(99) if shard_of(f"{n}.png", 2) == 2)
    shutil.copy(photos / "b.png", photos / added)
    with pytest.raises(ZeroDivisionError):
        label(("photos",), late, "2/2", task=Failing(), output={"resume": True})
    with pytest.raises(SourceError, match=f"{late}', share 2/2, is unfinished.*resume"):
        convert(pattern, f"merged{suffix}", overwrite=True)
    *_, together = verify_all([pattern])
    assert f"'{late}', share 2/2, is unfinished" in str(together)
    label(("photos",), late, "2/2", output={"resume": True})
    convert(pattern, f"merged{suffix}", overwrite=True)
    label(("photos",), f"all{suffix}")
    assert Path(f"merged{suffix}").read_bytes() == Path(f"all{suffix}").read_bytes()


class Failing(CaptionTask):
    """A task that comes to rows, and no further."""

    def __init__(self) -> None:
        super().__init__(decode=SHORT)

    def rows(self, *args: Any) -> Any:
        raise ZeroDivisionError


def test_a_share_that_was_never_merged_is_unfinished_not_missing(
    photos: Path, label: Label
) -> None:
    pattern = shares(label, 2, ".parquet", ("photos",))
    paths = OutputPaths.of("out-2-of-2.parquet")
    os.rename(paths.final, paths.part(0))
    with pytest.raises(SourceError, match=r"'out-2-of-2\.parquet', share 2/2, is unfinished"):
        convert(pattern, "merged.parquet")
    done = convert(pattern, "merged.parquet", allow_missing=True)
    assert 0 < done.rows < 12
    *_, single, together = verify_all([pattern])
    assert "unfinished, in 1 parts" in str(single)
    assert "share 2/2, is unfinished" in str(together)


def test_an_image_in_another_share_is_damage(photos: Path, label: Label) -> None:
    shares(label, 2, ".jsonl", ("photos",))
    with Path("out-1-of-2.jsonl").open("ab") as file:
        file.write(Path("out-2-of-2.jsonl").read_bytes().splitlines(keepends=True)[0])
    first, *_ = verify_all(["out-1-of-2.jsonl"])
    assert first.state == "damaged"
    assert "images of other shares are in it" in str(first)
