"""What is left of a listing, looked up one by one and many together."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blip2cli.errors import OutputError
from blip2cli.pipeline.dealt_with import DealtWith, left_of, left_of_blocks
from blip2cli.pipeline.plan import PassedOver
from blip2cli.sinks import ResumedOutput
from blip2cli.sinks.failure_list_journal import FailureJournal
from blip2cli.sinks.journal import Journal
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sources import ImageRef, RefBlock
from blip2cli.storage.hash_set import HashSet

PATHS = OutputPaths.of("x.jsonl")


def earlier(done: list[str], failed: list[str]) -> ResumedOutput:
    failures = FailureJournal(PATHS, HashSet(failed), 1)
    return ResumedOutput(Journal(HashSet(done)), failures, PATHS, 0.0)


_NAMES = st.lists(st.sampled_from("abcdefgh"), max_size=8)


@given(st.lists(_NAMES, max_size=4), _NAMES, _NAMES, st.booleans())
def test_what_is_left_is_the_same_together(
    listed: list[list[str]], done: list[str], failed: list[str], retry_errors: bool
) -> None:
    resumed = earlier(done, [name for name in failed if name not in done])
    together, single = PassedOver(), PassedOver()
    blocks = (RefBlock.of_files(names, "", "/", unique=False) for names in listed)
    names = dict.fromkeys(name for block in listed for name in block)
    refs = (ImageRef(name, f"/{name}") for name in names)
    dealt_with = DealtWith(resumed, retry_errors)
    assert [*left_of_blocks(blocks, dealt_with, together, None)] == [
        *left_of(refs, None, dealt_with, single, None)
    ]
    assert together == single


def test_contents_are_checked_together(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    block = RefBlock.of_files(["a"], "", f"{tmp_path}/")
    dealt_with = DealtWith(earlier(["a"], []), False)
    assert not [*left_of_blocks(iter([block]), dealt_with, PassedOver(), 1e12)]
    with pytest.raises(OutputError, match="the file of 'a' has changed"):
        next(left_of_blocks(iter([block]), dealt_with, PassedOver(), 1.0))
