"""Recall of vectors: what is nearest, where several are as near, and what has no vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from blip2cli.evaluate.recall import best_ranks
from blip2cli.evaluate.run import evaluate
from blip2cli.options import EvalOptions
from tests.evaluate.helpers import write


def test_wrong_ones_that_are_as_near_count_against() -> None:
    queries = np.eye(2)
    others = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.5]])
    pairs = np.array([[0, 1], [1, 2], [1, 3]])
    assert best_ranks(queries, others, pairs, np.arange(2)).tolist() == [1, 0]


def test_vectors_of_any_length_with_nulls_between(tmp_path: Path) -> None:
    images = [
        {"file_name": "a.jpg", "embedding": [1.0, 0.0]},
        {"file_name": "none.jpg", "embedding": None},
        {"file_name": "b.jpg", "embedding": [0.0, 1.0]},
    ]
    texts = [
        {"text": "a", "embedding": [0.1, 0.0]},
        {"text": "b", "embedding": [9.0, 10.0]},
        {"text": "b too", "embedding": [0.0, 0.1]},
    ]
    pairs = [{"file_name": f"{text[0]}.jpg", "caption": text} for text in ("a", "b", "b too")]
    rows = tuple(
        str(write(tmp_path / name, content))
        for name, content in (("i.jsonl", images), ("t.jsonl", texts))
    )
    found = evaluate(EvalOptions(rows, against=str(write(tmp_path / "p.jsonl", pairs))))
    assert found.counts == {"images": 2, "texts": 3, "pairs": 3}
    assert found.value("image_to_text_recall@1") == 1
    assert found.value("text_to_image_recall@1") == 1
    assert not found.notes
