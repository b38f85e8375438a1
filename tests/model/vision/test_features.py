from __future__ import annotations

import torch

from tests.model.conftest import IMAGES, Pair


def test_features_equal_transformers(either: Pair) -> None:
    with torch.no_grad():
        want = either.theirs.get_image_features(either.pixel_values)
    got = either.features
    assert len(got) == IMAGES
    vision = want.vision_outputs
    torch.testing.assert_close(got.image_embeds, vision.last_hidden_state, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        got.query_output, want.qformer_outputs.last_hidden_state, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(got.language_inputs, want.pooler_output, rtol=1e-4, atol=1e-5)


def test_pooled_is_the_normed_class_token(either: Pair) -> None:
    vision = either.theirs.vision_model
    with torch.no_grad():
        want = vision(pixel_values=either.pixel_values).pooler_output
    torch.testing.assert_close(either.features.pooled, want, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(want[0], want[1])
