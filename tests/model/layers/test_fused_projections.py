"""Projections fused into one linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blip2cli.model.layers.fused_projections import FusableProjections, fuse_projections
from blip2cli.model.layers.packed_linear import pack_weights
from tests.model.layer_weights import filled


class Three(FusableProjections):
    FUSABLE = (("one", "two"), ("three",))

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = filled(16, 24), filled(16, 24, bias=False)
        self.three = filled(24, 8)

    def forward(self, states: Tensor) -> Tensor:
        one, two = self.project(states, "one", "two")
        (three,) = self.project(one - two, "three")
        return three


def test_fused_layers_give_what_they_gave_before() -> None:
    model = nn.Sequential(Three())
    states = torch.randn(4, 9, 16)
    want = model(states)
    assert float(want.std()) > 0.1
    fuse_projections(model)
    assert {name for name, _ in model.named_parameters()} == {
        "0.one_two.weight",
        "0.one_two.bias",
        "0.three.weight",
        "0.three.bias",
    }
    torch.testing.assert_close(model(states), want)
    pack_weights(model)
    assert not dict(model.named_parameters()).keys() & {"0.one_two.weight", "0.three.weight"}
    torch.testing.assert_close(model(states), want)


def test_outputs_side_by_side_are_the_same() -> None:
    model, states = Three(), torch.randn(4, 9, 16)
    for _ in range(2):
        together = model.project_together(states, "one", "two")
        assert together.shape == (4, 9, 2, 24)
        for one, other in zip(together.unbind(2), model.project(states, "one", "two"), strict=True):
            assert torch.equal(one, other)
        model.fuse()
