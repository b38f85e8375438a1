"""There and back again, bit for bit, whichever side one begins on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from blip2cli.doctor.examine import examine
from blip2cli.model.checkpoint.embedded import embedded_path
from blip2cli.options import DoctorOptions
from tests.convert.checkpoints.helpers import convert, like, loaded, same, state_of, tensors
from tests.convert.checkpoints.lavis import SMALL, half_vision, random_state, save, saved_shapes
from training.build import zero_key_bias

KINDS = ["opt", "t5", "itm"]
LOST = ("temp", "Qformer.cls.")  # transformers has no place for them


def without_key_bias(directory: Path) -> Path:
    """The same model without the bias that LAVIS has no place for."""
    model = loaded(directory)
    zero_key_bias(model)
    model.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_to_lavis_to_transformers(kind: str, tmp_path: Path) -> None:
    small = without_key_bias(like(kind, tmp_path / "model"))
    convert(small, tmp_path / "lavis.pth")
    convert(tmp_path / "lavis.pth", tmp_path / "back", like=small)
    assert same(tensors(small), tensors(tmp_path / "back"))
    for file in small.iterdir():
        if file.suffix == ".json":
            assert json.loads(file.read_text()) == json.loads(
                (tmp_path / "back" / file.name).read_text()
            )


# The retrieval model's own tokenizer has fewer words than SMALL says.
SMALL_WORDS = dict.fromkeys(KINDS, SMALL)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("halved", [False, True], ids=["float32", "float16 vision"])
def test_lavis_to_transformers_to_lavis(kind: str, halved: bool, tmp_path: Path) -> None:
    state = random_state(saved_shapes(kind, SMALL, 32, vision=True))
    if halved:
        state = half_vision(state)
        assert {value.dtype for value in state.values()} >= {torch.float16, torch.float32}
    source = save(state, tmp_path / "one.pth", optimizer={"lr": 0.1}, epoch=3)
    convert(source, tmp_path / "model", like=like(kind, tmp_path / "like"))
    convert(tmp_path / "model", tmp_path / "two.pth")
    trained = {name: value for name, value in state.items() if not name.startswith(LOST)}
    assert same(trained, state_of(tmp_path / "two.pth"))


def test_tiny_to_lavis_to_transformers(tmp_path: Path) -> None:
    convert("tiny", tmp_path / "tiny.pth")
    done = convert(tmp_path / "tiny.pth", tmp_path / "back", like="tiny")
    assert done.notes == ["Read as LAVIS's opt model, like tiny."]
    assert same(tensors(embedded_path("tiny")), tensors(tmp_path / "back"))
    config = json.loads((embedded_path("tiny") / "config.json").read_text())
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == config
    state = state_of(tmp_path / "tiny.pth")
    assert not any(name.startswith("opt_model") for name in state)
    assert state["visual_encoder.blocks.5.attn.q_bias"].shape == (128,)
    assert torch.equal(state["Qformer.bert.embeddings.position_ids"], torch.arange(256)[None])
    assert examine(DoctorOptions(str(tmp_path / "back"))).failures == ()


def test_a_bias_of_the_keys_is_left_out_and_changes_nothing(tmp_path: Path) -> None:
    small = like("opt", tmp_path / "model")
    done = convert(small, tmp_path / "lavis.pth")
    assert any("In 3 layers the keys have a bias" in note for note in done.notes)
    convert(tmp_path / "lavis.pth", tmp_path / "back", like=small)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.manual_seed(0))
    with torch.inference_mode():
        before = loaded(small).vision_model(pixels).last_hidden_state
        after = loaded(tmp_path / "back").vision_model(pixels).last_hidden_state
    assert not same(tensors(small), tensors(tmp_path / "back"))
    assert (before - after).abs().max() < 1e-5
