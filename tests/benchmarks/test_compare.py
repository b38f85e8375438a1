"""No time is printed where peers differ in what has to be equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import compare as module
import pytest
from compare import DifferentError, compare
from rounds import Ran
from work import Work

WORK = Work("caption", ("a.jpg", "b.jpg"))


def ran(answers: list[Any], dtype: str = "float32", numbers: range = range(2)) -> Ran:
    return Ran(dtype, numbers, answers=[answers])


def notes_of(kind: str, **peers: Ran) -> list[str]:
    return compare(kind, Path("model"), WORK, peers)


@pytest.fixture
def gap(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What transformers' ``forward`` would say of the two tokens at a first difference."""
    values: list[float] = []
    monkeypatch.setattr(module, "_gaps", lambda *arguments: values)
    return values


def test_equal_texts_pass() -> None:
    (note,) = notes_of("caption", batched=ran([[[1, 2]], [[3]]]), ours=ran([[[1, 2]], [[3]]]))
    assert "same tokens as batched" in note
    assert "2 texts" in note


def test_a_sampled_peer_is_compared_on_its_own_images() -> None:
    docs = ran([[[3]]], numbers=range(1, 2))
    (note,) = notes_of("caption", docs=docs, ours=ran([[[1, 2]], [[3]]]))
    assert "1 texts" in note
    with pytest.raises(DifferentError, match="image 1"):
        notes_of("beam", docs=docs, ours=ran([[[3]], [[1, 2]]]))


def test_one_other_token_in_float32_is_refused(gap: list[float]) -> None:
    gap.append(0.5)
    with pytest.raises(DifferentError, match=r"image 1: \[9\] instead of \[3\]"):
        notes_of("caption", batched=ran([[[1, 2]], [[3]]]), ours=ran([[[1, 2]], [[9]]]))


def test_a_tie_in_float32_is_told(gap: list[float]) -> None:
    gap.append(0.0002)
    (note,) = notes_of("caption", batched=ran([[[1, 2]], [[3]]]), ours=ran([[[1, 2]], [[9]]]))
    assert "1 of 2 texts and 66.7% of the tokens are equal" in note
    assert "0.0002 apart" in note


def test_near_ties_in_bfloat16_are_told(gap: list[float]) -> None:
    gap += [0.5, 0.1]
    left, right = ran([[[1]], [[3]]], "bfloat16"), ran([[[7]], [[9]]], "bfloat16")
    (note,) = notes_of("caption", batched=left, ours=right)
    assert "0 of 2 texts" in note
    assert "0.5 apart" in note


def test_between_precisions_only_shares_are_told() -> None:
    (note,) = notes_of(
        "caption", batched=ran([[[1]], [[3]]], "bfloat16"), ours=ran([[[1]], [[9]]], "int8")
    )
    assert note.startswith("ours in int8 beside batched in bfloat16: 1 of 2 texts")


def test_a_peer_that_changes_its_mind_is_refused() -> None:
    ours = Ran("float32", range(2), answers=[[[[1]], [[3]]], [[[1]], [[4]]]])
    with pytest.raises(DifferentError, match="ours says one thing in one round"):
        notes_of("caption", batched=ran([[[1]], [[3]]]), ours=ours)


@pytest.mark.parametrize(
    ("ours", "why"), [([-1.0, -2.002], "0.002 apart"), ([-2.0, -1.0], "1 of 1 rankings")]
)
def test_scores_are_held_to_their_tolerance(ours: list[float], why: str) -> None:
    peer = ran([[-1.0, -2.0]], numbers=range(1))
    (note,) = notes_of("choices", forward=peer, ours=ran([[-1.0, -2.0004]], numbers=range(1)))
    assert "same rankings" in note
    with pytest.raises(DifferentError, match=why):
        notes_of("choices", forward=peer, ours=ran([ours], numbers=range(1)))


def test_states_are_measured_by_those_in_float32() -> None:
    exact = ran([[3.0, 4.0], [0.0, 2.0]])
    peer, ours = (ran([[3.0, 4.0 + by], [0.0, 2.0]], "int8") for by in (0.1, 0.05))
    first, second = notes_of("vision", batched=exact, openvino=peer, ours=ours)
    assert first.startswith("openvino in int8 is 1.00% of the states' norm from batched in float32")
    assert "(2.00% in the worst of 2 images)" in first
    assert second.startswith("ours in int8 is 0.50%")
    with pytest.raises(DifferentError, match="5% are allowed"):
        notes_of("vision", batched=exact, ours=ran([[3.0, 5.0], [0.0, 2.0]], "int8"))


def test_vectors_and_pixels_are_held_to_theirs() -> None:
    (note,) = notes_of("embed", batched=ran([[3.0, 4.0]]), ours=ran([[3.0, 4.0001]]))
    assert "2e-05 of their length" in note
    with pytest.raises(DifferentError, match="of their length apart"):
        notes_of("embed", batched=ran([[3.0, 4.0]]), ours=ran([[3.0, 4.01]]))
    with pytest.raises(DifferentError, match="pixels of 1 of 2"):
        notes_of("pixels", docs=ran(["a", "b"]), ours=ran(["a", "c"]))
