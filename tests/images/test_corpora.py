"""A sample of the images made to hurt; ``make torture`` runs all of them."""

from __future__ import annotations

from itertools import islice

import pytest

from blip2cli.images.decode import FORMATS, decode
from tests.torture.corpora import Findings, cache_folder, check, growth, hostile
from tests.torture.mutants import mutants, prefixes, seeds


def test_prefixes_and_mutants_end_as_pixels_or_as_a_named_failure() -> None:
    findings = Findings()
    sample = [*prefixes(FORMATS[:4], step=23), *mutants(150, seed=7)]
    check(sample, findings, workers=1)
    assert findings.faults == []
    assert findings.tried == len(sample)
    assert findings.rows + findings.failures.total() == len(sample)
    # The whole images decode, and damage is met with more than one answer.
    assert findings.rows > 4
    assert {"truncated", "corrupt", "empty"} <= set(findings.failures)


def test_hostile_images_end_as_pixels_or_as_a_named_failure() -> None:
    try:
        refs = hostile(cache_folder(), fetch=False)
    except LookupError as reason:
        pytest.skip(f"the hostile images of Pillow's source are not here; {reason}")
    findings = Findings()
    check(refs, findings, workers=1)
    assert findings.faults == []
    assert findings.tried == len(refs) > 50


def test_every_seed_is_valid_and_every_format_has_one() -> None:
    found = seeds()
    assert set(FORMATS) <= set(found)
    for kind, data in found.items():
        assert len(data) < 2000, kind
        picture = decode(data)
        assert 0 < picture.width <= 12


def test_a_seed_gives_the_same_mutants_again() -> None:
    first, again = ([m.data for m in mutants(100, seed)] for seed in (3, 3))
    assert first == again
    assert first != [m.data for m in mutants(100, seed=4)]
    assert list(islice(mutants(50, 3), 50)) == list(islice(mutants(100, 3), 50))
    assert len(set(first)) > 90


def test_growth_compares_the_end_with_the_start() -> None:
    assert growth([9, 9, 5, 6, 5, 5, 5, 5, 8, 7]) == 2
    assert growth([1, 2, 3]) == 0
