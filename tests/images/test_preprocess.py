from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BlipImageProcessorPil

from blip2cli.errors import ModelError
from blip2cli.images.decode import decode
from blip2cli.images.preprocess import CLIP_MEAN, CLIP_STD, PixelSpec, normalize, to_uint8
from tests.images.pictures import PHOTOGRAPHS, gradient, photograph

# As published with Salesforce/blip2-opt-2.7b.
HUB: dict[str, Any] = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "BlipImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "processor_class": "Blip2Processor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}


def reference(image: Image.Image, config: dict[str, Any]) -> torch.Tensor:
    known = {
        k: v for k, v in config.items() if k not in ("image_processor_type", "processor_class")
    }
    values: torch.Tensor = BlipImageProcessorPil(**known)(image, return_tensors="pt")[
        "pixel_values"
    ]
    return values


def ours(image: Image.Image, config: dict[str, Any]) -> torch.Tensor:
    spec = PixelSpec.from_processor_config(config)
    return normalize(to_uint8(image, spec)[None], spec, torch.float32)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_equal_the_reference(name: str) -> None:
    picture = decode(photograph(name)).image
    plain = Image.open(io.BytesIO(photograph(name)))
    # Not only within 1e-6: bit for bit.
    assert torch.equal(ours(picture, HUB), reference(plain, HUB))


@pytest.mark.parametrize(
    "size",
    # The last two lie in several of Pillow's blocks of memory.
    [(1, 1), (1, 3000), (2500, 2), (224, 224), (96, 96), (640, 480), (2600, 1700), (1700, 2600)],
)
def test_shapes_equal_the_reference(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise)
    assert torch.equal(ours(image, HUB), reference(image, HUB))


@pytest.mark.parametrize(
    "change",
    [
        {"size": {"height": 96, "width": 80}},
        {"resample": 2},
        {"resample": 0},
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"rescale_factor": 0.0123},
        {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 0.125]},
        {"image_mean": 0.5, "image_std": 0.5},
    ],
    ids=str,
)
def test_settings_equal_the_reference(change: dict[str, Any]) -> None:
    found, expected = ours(gradient(), HUB | change), reference(gradient(), HUB | change)
    assert found.shape == expected.shape
    # Without rescaling the values are 255 times as large, and so is a rounding step.
    scale = 255 if change.get("do_rescale") is False else 1
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-6 * scale)


def test_every_pixel_value_is_exact() -> None:
    image = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (256, 1, 3)))
    config = HUB | {"size": {"height": 256, "width": 256}}
    assert torch.equal(ours(image, config), reference(image, config))


def test_hand_over_is_contiguous_uint8() -> None:
    pixels = to_uint8(gradient(), PixelSpec(24, 32))
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, 24, 32)
    assert pixels.is_contiguous()


def test_normalize_does_not_change_its_input_nor_the_batch() -> None:
    spec = PixelSpec(4, 5)
    pixels = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
    before = pixels.clone()
    single = torch.cat([normalize(row[None], spec) for row in pixels])
    assert torch.equal(normalize(pixels, spec), single)
    assert torch.equal(pixels, before)
    half = normalize(pixels, spec, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, single.to(torch.bfloat16))  # rounded once, at the end
    assert normalize(pixels[:0], spec).shape == (0, 3, 4, 5)


def test_published_and_older_configurations() -> None:
    spec = PixelSpec.from_processor_config(HUB)
    assert spec == PixelSpec(224, 224, 3, CLIP_MEAN, CLIP_STD, 1 / 255)
    assert PixelSpec.from_processor_config({"image_processor": HUB}) == spec
    assert PixelSpec.from_processor_config(HUB | {"size": 224}) == spec
    assert PixelSpec.from_processor_config(HUB | {"size": [224, 224]}) == spec
    assert PixelSpec.from_processor_config({"size": 224}) == spec
    assert PixelSpec.from_processor_config({}) == PixelSpec(384, 384)
    fast = HUB | {"image_processor_type": "BlipImageProcessorFast", "do_center_crop": None}
    assert PixelSpec.from_processor_config(fast) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_center_crop": True}, "do_center_crop"),
        ({"do_pad": True}, "do_pad"),
        ({"do_resize": False}, "do_resize"),
        ({"size": {"shortest_edge": 224}}, "shortest_edge"),
        ({"size": 0}, "size 0"),
        ({"size": "large"}, "size 'large'"),
        ({"size": [1, 2, 3]}, "size"),
        ({"resample": 17}, "resample 17"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std"),
        ({"image_processor_type": "CLIPImageProcessor"}, "CLIPImageProcessor"),
    ],
    ids=str,
)
def test_unsupported_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        PixelSpec.from_processor_config(HUB | change)
