"""What tells the weights of a model from others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip2cli.model.checkpoint import hub, identity
from blip2cli.model.checkpoint.identity import model_identity, weights_identity
from blip2cli.model.checkpoint.resolve import resolve
from blip2cli.options import ModelOptions

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def of(directory: Path, **limits: int) -> str:
    return weights_identity(resolve(str(directory)), **limits)


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def test_content_counts_and_nothing_else(checkpoint: Path, copy: Path) -> None:
    (copy / "README.md").write_text("words")
    os.utime(copy / "model.safetensors", (0, 0))
    save_file(load_file(copy / "model.safetensors"), copy / "model.safetensors", {"made": "anew"})
    assert of(copy) == of(checkpoint)
    (copy / "generation_config.json").write_text('{"max_length": 5}')
    assert of(copy) != of(checkpoint)


@pytest.mark.parametrize("whole", [True, False])
def test_changed_tensors_are_seen_at_both_ends_and_small_ones_anywhere(
    checkpoint: Path, copy: Path, whole: bool
) -> None:
    limits = {} if whole else {"whole_bytes": 0}  # as of a file of gigabytes
    before, weights = of(checkpoint, **limits), load_file(copy / "model.safetensors")
    largest = max(weights, key=lambda name: weights[name].nbytes)
    smallest = min(weights, key=lambda name: weights[name].nbytes)
    assert weights[largest].nbytes > 4096
    for name, at in ((largest, 0), (largest, -1), (smallest, 0)):
        changed = dict(weights) | {name: weights[name].clone()}
        changed[name].view(-1)[at] += 1
        save_file(changed, copy / "model.safetensors")
        assert of(copy, **limits) != before
    save_file({k: v.to(torch.bfloat16) for k, v in weights.items()}, copy / "model.safetensors")
    assert of(copy, **limits) != before


def test_pickles_and_damaged_files_have_an_identity_too(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    before = of(copy)
    torch.save(weights | {"query_tokens": weights["query_tokens"] + 1}, copy / "pytorch_model.bin")
    assert of(copy) != before
    (copy / "model.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0[1]  and more")
    assert of(copy).startswith("files:")


def test_a_model_of_the_hub_is_its_commit(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub" / "models--me--mine" / "snapshots" / COMMIT
    shutil.copytree(checkpoint, snapshot)
    assert of(snapshot) == f"hub:{COMMIT}"
    monkeypatch.setattr(identity, "current_commit", lambda repo, revision: COMMIT)
    assert model_identity(ModelOptions("me/mine"), None) == f"hub:{COMMIT}"
    assert model_identity(ModelOptions("no-such-directory"), None) is None


def test_the_commit_is_that_of_the_cache_where_the_hub_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: True)
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda repo, name, revision: f"/cache/snapshots/{COMMIT}/{name}" if revision else None,
    )
    assert hub.current_commit("me/mine", "main") == COMMIT
    assert hub.current_commit("me/mine", None) is None
