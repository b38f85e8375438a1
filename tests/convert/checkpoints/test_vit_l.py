"""CLIP's ViT-L, which LAVIS trained two models with: what it computes is what LAVIS's code does."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from blip2cli.convert.checkpoints.lavis_file import lavis_weights, read_vision
from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.config import VisionConfig
from blip2cli.model.families import T5
from blip2cli.model.nets.vision import VisionModel

WIDTH, DEPTH, HEADS, SIDE, PATCH = 64, 3, 4, 32, 8


class QuickGelu(nn.Module):
    def forward(self, states: Tensor) -> Tensor:
        return states * torch.sigmoid(1.702 * states)


class Block(nn.Module):
    """A layer of LAVIS's ``clip_vit.py``, by its names."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.ln_1 = nn.LayerNorm(WIDTH)
        layers = {"c_fc": nn.Linear(WIDTH, 4 * WIDTH), "gelu": QuickGelu()}
        self.mlp = nn.Sequential(OrderedDict(layers | {"c_proj": nn.Linear(4 * WIDTH, WIDTH)}))
        self.ln_2 = nn.LayerNorm(WIDTH)

    def forward(self, states: Tensor) -> Tensor:
        normed = self.ln_1(states)
        states = states + self.attn(normed, normed, normed, need_weights=False)[0]
        after: Tensor = states + self.mlp(self.ln_2(states))
        return after


class VitL(nn.Module):
    """Its vision encoder, with one layer and a head more than BLIP-2 uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn((SIDE // PATCH) ** 2 + 1, WIDTH))
        self.ln_pre = nn.LayerNorm(WIDTH)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(Block() for _ in range(DEPTH + 1))
        self.ln_post = nn.LayerNorm(WIDTH)
        self.proj = nn.Parameter(torch.randn(WIDTH, 16))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(pixels), 1, -1)
        states = self.ln_pre(torch.cat((first, patches), dim=1) + self.positional_embedding)
        for number in range(DEPTH):
            states = self.transformer.resblocks[number](states)
        return nn.functional.layer_norm(states, (WIDTH,))  # ln_vision, as it begins


@torch.inference_mode()
def test_states_are_those_of_lavis(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = VitL().eval()
    for weight in theirs.parameters():
        if weight.dim() == 1:
            nn.init.normal_(weight, 0.5, 0.3)
    torch.save(theirs.state_dict(), tmp_path / "clip_vit_L.pth")
    config = VisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        image_size=SIDE,
        patch_size=PATCH,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
        pre_layernorm=True,
    )
    ours = VisionModel(config)
    found = read_vision(tmp_path / "clip_vit_L.pth", DEPTH)
    state = {name.removeprefix("vision_model."): each.load() for name, each in found.items()}
    state |= {f"post_layernorm.{name}": torch.ones(WIDTH) for name in ("weight", "bias")}
    state["post_layernorm.bias"] = torch.zeros(WIDTH)
    ours.load_state_dict(state)
    pixels = torch.randn(2, 3, SIDE, SIDE)
    torch.testing.assert_close(ours(pixels)[0], theirs(pixels), rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match="ViT-L is only read from LAVIS's files"):
        lavis_weights(found, T5, 8)
