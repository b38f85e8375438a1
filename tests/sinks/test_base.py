from __future__ import annotations

import numpy as np
import pytest
import torch

from blip2cli.errors import RunError
from blip2cli.sinks.base import Column, RowSchema, disk_errors
from tests.sinks.helpers import COLUMNS, row


def test_rows_are_complete_and_in_order() -> None:
    schema = RowSchema.of(COLUMNS, inline_errors=False)
    shuffled = dict(reversed(row(1).items()))
    assert list(schema.complete(shuffled)) == ["file_name", "width", "height", "caption", "logprob"]
    for wrong in (row(1) | {"extra": 1}, {"file_name": "a"}):
        with pytest.raises(ValueError, match="lacks"):
            schema.complete(wrong)


def test_inline_errors_add_a_column() -> None:
    schema = RowSchema.of(COLUMNS, inline_errors=True)
    assert schema.complete(row(1))["error"] is None
    assert RowSchema.of((*COLUMNS, Column("error", "string")), inline_errors=True) == schema


def test_values_become_plain_python() -> None:
    columns = (
        Column("embedding", "embedding", 3),
        Column("score", "float"),
        Column("candidates", "texts"),
        Column("probabilities", "choices"),
    )
    schema = RowSchema.of(columns, inline_errors=False)
    common = {"file_name": "a", "width": 1, "height": 1}
    for embedding in (
        [0.5, 1, float("nan")],
        np.array([0.5, 1, np.nan], np.float32),
        torch.tensor([0.5, 1, torch.nan]),
    ):
        found = schema.complete(
            common
            | {
                "embedding": embedding,
                "score": float("-inf"),
                "candidates": [{"logprob": np.float32(-0.5), "text": "a cat"}],
                "probabilities": [{"choice": "yes", "probability": 1}],
            }
        )
        assert found["embedding"] == [0.5, 1.0, None]
        assert found["score"] is None
        assert found["candidates"] == [{"text": "a cat", "logprob": -0.5}]
        assert list(found["candidates"][0]) == ["text", "logprob"]
        assert found["probabilities"] == [{"choice": "yes", "probability": 1.0}]
    with pytest.raises(ValueError, match="2 numbers, not 3"):
        schema.complete(found | {"embedding": [1, 2]})


def test_wrong_columns() -> None:
    with pytest.raises(ValueError, match="share a name"):
        RowSchema.of((Column("width", "int"),), inline_errors=False)
    for column in (Column("e", "embedding"), Column("s", "string", 3)):
        with pytest.raises(ValueError, match="has a size"):
            RowSchema.of((column,), inline_errors=False)


def test_disk_errors_name_file_cause_and_what_is_safe() -> None:
    with (
        pytest.raises(
            RunError, match=r"'/x/out.jsonl' failed \(No space left.*\); 3 rows are safe"
        ),
        disk_errors("/x/out.jsonl", "3 rows are safe"),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(BrokenPipeError), disk_errors("stdout", ""):
        raise BrokenPipeError
