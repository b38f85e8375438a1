"""The images that an earlier run has dealt with, and those of a listing that are left."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from blip2cli.errors import OutputError, option
from blip2cli.pipeline.plan import PassedOver
from blip2cli.sinks import ResumedOutput
from blip2cli.sources import ImageRef, RefBlock
from blip2cli.storage.hash_set import HashSet

_MANY = 1 << 15  # images of an output, from which on those of a listing are looked up together


class DealtWith:
    """The keys of images that have rows, or have failed and are not to be tried again."""

    def __init__(self, resumed: ResumedOutput | None, retry_errors: bool) -> None:
        sets = [] if resumed is None else [resumed.rows.done]
        if resumed is not None and resumed.failures is not None and not retry_errors:
            sets.append(resumed.failures.failed)
        self._sets = sets
        self._met: list[Any] = []  # for each set, which of its hashes ``meet`` has found

    @property
    def many(self) -> bool:
        """Whether it is quicker to look at images together."""
        return sum(map(len, self._sets)) > _MANY

    def __contains__(self, key: str) -> bool:
        return any(key in keys for keys in self._sets)

    def meet(self, keys: Sequence[str]) -> tuple[list[bool], int]:
        """Which of many keys are here, and how many of these were not met before."""
        import numpy as np

        self._met = self._met or [np.zeros(len(known), bool) for known in self._sets]
        here, count = np.zeros(len(keys), bool), 0
        left = np.arange(len(keys))
        for known, met in zip(self._sets, self._met, strict=True):
            all_left = len(left) == len(keys)
            places = known.places(keys if all_left else [keys[number] for number in left.tolist()])
            found = places[places >= 0]
            new = np.sort(found[~met[found]])
            met[new] = True
            count += len(new) - int(np.count_nonzero(new[1:] == new[:-1]))
            here[left] = places >= 0
            left = left[places < 0]
            if not len(left):
                break
        answers: list[bool] = here.tolist()
        return answers, count


def left_of(
    refs: Iterator[ImageRef],
    only: Collection[str] | None,
    dealt_with: DealtWith,
    passed_over: PassedOver,
    written: float | None,
) -> Iterator[ImageRef]:
    """The images that are to be run; counts the others. ``only`` are names.

    Raises OutputError for one that was dealt with and has changed since ``written``, a time.
    """
    for ref in refs:
        if only is not None and ref.file_name not in only:
            passed_over.skipped += 1
        elif ref.key in dealt_with:
            passed_over.already += 1
            _check_content(ref, written)
        else:
            yield ref


def left_of_blocks(
    blocks: Iterator[RefBlock],
    dealt_with: DealtWith,
    passed_over: PassedOver,
    written: float | None,
) -> Iterator[ImageRef]:
    """The same, of images that are listed together; makes no other references than needed."""
    seen = HashSet()
    for block in blocks:
        known, count = dealt_with.meet(block.keys)
        passed_over.already += count
        if written is None and all(known):
            continue
        for number, (key, is_known) in enumerate(zip(block.keys, known, strict=True)):
            if is_known:
                if written is not None:
                    _check_content(block.ref(number), written)
            elif block.unique or seen.add(key):
                yield block.ref(number)


def _check_content(ref: ImageRef, written: float | None) -> None:
    if written is not None and ref.changed_since(written):
        raise OutputError(
            "check_content",
            f"{option('resume')}: the file of {ref.file_name!r} has changed since rows were "
            "written last",
            f"start anew with {option('overwrite')}, or leave out {option('check_content')} if "
            "its row is still right",
        )
