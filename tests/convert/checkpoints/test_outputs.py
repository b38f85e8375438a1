"""A converted model computes what LAVIS's own computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blip2cli.convert.checkpoints import CheckpointOptions, convert_checkpoint
from blip2cli.system.library_logging import silence_libraries
from tests.convert.checkpoints.helpers import like, loaded, texts
from tests.convert.checkpoints.lavis import (
    SMALL,
    State,
    attend,
    contrast,
    match,
    random_state,
    save,
    saved_shapes,
    see,
)

BOUND = 1e-4


@pytest.fixture(params=["opt", "t5", "itm"])
def kind(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@torch.inference_mode()
def test_a_converted_model_computes_what_lavis_computes(kind: str, tmp_path: Path) -> None:
    state: State = random_state(saved_shapes(kind, SMALL, 32, vision=True))
    source = save(state, tmp_path / "lavis.pth")
    other = like(kind, tmp_path / "like")
    convert_checkpoint(CheckpointOptions((str(source),), str(tmp_path / "out"), like=str(other)))
    model = loaded(tmp_path / "out")
    pixels = torch.randn(3, 3, SMALL.image, SMALL.image, generator=torch.manual_seed(1))

    seen = see(state, pixels, SMALL)
    queries = state["query_tokens"].expand(3, -1, -1)
    expected = attend(state, SMALL, queries, seen, None)
    vision = model.vision_model(pixel_values=pixels).last_hidden_state
    query = model.qformer(query_embeds=queries, encoder_hidden_states=vision).last_hidden_state
    assert seen.abs().max() > 2  # numbers large enough for the bound to mean something
    assert expected.abs().max() > 2
    assert (vision - seen).abs().max() < BOUND
    assert (query - expected).abs().max() < BOUND
    if kind != "itm":
        weight, bias = state[f"{kind}_proj.weight"], state[f"{kind}_proj.bias"]
        projected = torch.nn.functional.linear(expected, weight, bias)
        assert (model.language_projection(query) - projected).abs().max() < BOUND
        return
    ids = texts(SMALL.vocabulary)
    filler = torch.full((3, SMALL.queries), model.config.image_token_index)
    inputs = {
        "pixel_values": pixels,
        "input_ids": torch.cat((filler, ids), dim=1),
        "attention_mask": torch.ones(3, SMALL.queries + ids.shape[1], dtype=torch.long),
    }
    with silence_libraries():
        fits = model(**inputs, use_image_text_matching_head=True).logits_per_image
        alike = model(**inputs).logits_per_image
    assert (fits - match(state, SMALL, seen, ids)).abs().max() < BOUND
    assert (alike - contrast(state, SMALL, seen, ids)).abs().max() < BOUND
