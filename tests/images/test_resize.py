"""The vectorised resize is Pillow's, bit for bit, or is Pillow's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from blip2cli.images import resize
from blip2cli.images.batch_stream import BatchStream
from blip2cli.images.decode import decode
from blip2cli.images.preprocess import PixelSpec
from blip2cli.images.resize import to_planes
from blip2cli.options import LoaderOptions
from tests.images.helpers import Made
from tests.images.pictures import PHOTOGRAPHS, encoded, photograph

Filter = Image.Resampling
BICUBIC = Filter.BICUBIC
FILTERS = [Filter.BOX, Filter.BILINEAR, Filter.HAMMING, BICUBIC, Filter.LANCZOS]

vectorised = pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX"),
    reason="the kernel is vectorised on x86 only",
)


def pillow_pixels(image: Image.Image, width: int, height: int, resample: Filter) -> np.ndarray:
    return np.asarray(image.resize((width, height), resample)).transpose(2, 0, 1)


def vectorised_pixels(
    image: Image.Image, width: int, height: int, resample: Filter
) -> np.ndarray | None:
    rule = resize._pass_order(torch)
    assert rule is not None
    found = resize._resize(torch, image, width, height, resample, rule)
    return None if found is None else found[:, :, :3].transpose(2, 0, 1)


def made(width: int, height: int, kind: str = "noise", seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    if kind == "extremes":  # the largest sums there are, and results that have to be cut off
        values = (values > 127) * 255
    elif kind == "stripes":
        values = np.broadcast_to((np.arange(width) % 2 * 255)[None, :, None], values.shape)
    elif kind == "flat":
        values = np.broadcast_to(values[:1, :1], values.shape)
    return Image.fromarray(values.astype(np.uint8))


@pytest.fixture
def fresh() -> Iterator[None]:
    """What is found out about this Pillow is found out again, and forgotten."""
    resize._pass_order.cache_clear()
    yield
    resize._pass_order.cache_clear()


@vectorised
@settings(max_examples=120, deadline=None, derandomize=True)
@example((640, 480), (224, 224), BICUBIC, "noise", 0)
@example((427, 640), (224, 224), BICUBIC, "noise", 0)  # Pillow 13 begins with the columns
@example((3001, 7), (224, 224), BICUBIC, "extremes", 0)
@example((5, 2999), (364, 364), BICUBIC, "extremes", 0)
@example((1, 1), (64, 64), Filter.LANCZOS, "noise", 0)
@example((5000, 9), (3, 2), Filter.LANCZOS, "extremes", 0)  # 10,000 addends
@given(
    st.tuples(st.integers(1, 420), st.integers(1, 420)),
    st.tuples(st.integers(1, 420), st.integers(1, 420)),
    st.sampled_from(FILTERS),
    st.sampled_from(["noise", "extremes", "stripes", "flat"]),
    st.integers(0, 9),
)
def test_every_size_and_filter_equals_pillow(
    size: tuple[int, int], expected: tuple[int, int], resample: Filter, kind: str, seed: int
) -> None:
    if size[0] == expected[0] or size[1] == expected[1]:
        expected = (size[0] + 1, size[1] + 1)
    image = made(*size, kind, seed)
    found = vectorised_pixels(image, *expected, resample)
    if found is None:  # only where hundreds of pixels become one float32 does not reach
        assert max(size[0] / expected[0], size[1] / expected[1]) > 150
        return
    assert found.dtype == np.uint8
    assert np.array_equal(found, pillow_pixels(image, *expected, resample))


@vectorised
@pytest.mark.parametrize("size", [96, 224, 364])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_equal_pillow_without_it(
    name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = decode(photograph(name)).image
    expected = pillow_pixels(image, size, size, BICUBIC)
    assert np.array_equal(to_planes(image, size, size, BICUBIC), expected)
    # Of Pillow's resize only the coefficients are needed, and those are known now.
    monkeypatch.delattr(Image.Image, "resize")
    found = to_planes(image, size, size, BICUBIC)
    assert found.flags.c_contiguous
    assert np.array_equal(found, expected)


def test_coefficients_are_those_of_pillow_and_sum_to_one() -> None:
    for size, outputs in ((640, 224), (224, 640), (4000, 224), (3, 7), (1, 5)):
        axis = resize._coefficients(torch, size, outputs, BICUBIC)
        assert axis is not None
        bits = 2.0**22
        whole = axis.high.double() * bits + axis.low.double() * bits * axis.step
        assert torch.equal(whole, whole.round())
        sums = [int(part.sum()) for part in whole.tensor_split(axis.starts[1:-1].long())]
        assert len(sums) == outputs
        # Each coefficient is rounded by itself.
        assert max(abs(total - bits) for total in sums) <= len(axis.rows) / outputs


def forbidden(*_: object) -> None:
    raise AssertionError("the quick way was taken")


@pytest.mark.parametrize(
    ("image", "size", "resample"),
    [
        (made(300, 300), (224, 224), Filter.NEAREST),
        (made(224, 300), (224, 224), BICUBIC),  # Pillow leaves a pass out
        (made(300, 224), (224, 224), BICUBIC),
        (made(224, 224), (224, 224), BICUBIC),
        (made(60, 40), (32, 32), BICUBIC),  # not worth it
        (made(20000, 4), (224, 224), BICUBIC),
        (made(300, 300).convert("RGBA"), (224, 224), BICUBIC),
    ],
    ids=["nearest", "as wide", "as high", "as large", "small", "long", "RGBA"],
)
def test_other_pictures_are_left_to_pillow(
    image: Image.Image, size: tuple[int, int], resample: Filter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resize, "_resize", forbidden)
    assert np.array_equal(
        to_planes(image, *size, resample), pillow_pixels(image, *size, resample)[:3]
    )


@vectorised
def test_other_threads_use_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    image, found = made(300, 260), []
    resize._pass_order(torch)
    monkeypatch.setattr(resize, "_resize", forbidden)
    thread = threading.Thread(target=lambda: found.append(to_planes(image, 224, 224, BICUBIC)))
    thread.start()
    thread.join()
    assert np.array_equal(found[0], pillow_pixels(image, 224, 224, BICUBIC))
    with pytest.raises(AssertionError, match="quick way"):
        to_planes(image, 224, 224, BICUBIC)


def test_without_torch_it_is_pillow() -> None:
    code = """
import sys
import numpy as np
from PIL import Image
from blip2cli.images.resize import to_planes
image = Image.effect_noise((300, 260), 80).convert("RGB")
expected = np.asarray(image.resize((224, 224), 3)).transpose(2, 0, 1)
assert np.array_equal(to_planes(image, 224, 224, Image.Resampling.BICUBIC), expected)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("block", ["16k", "64k"])
def test_pictures_in_small_pieces_are_left_to_pillow(block: str) -> None:
    code = """
import numpy as np, torch
from PIL import Image
from blip2cli.images.resize import to_planes
image = Image.effect_noise((300, 260), 80).convert("RGB")
expected = np.asarray(image.resize((224, 224), 3)).transpose(2, 0, 1)
assert np.array_equal(to_planes(image, 224, 224, Image.Resampling.BICUBIC), expected)
"""
    environment = {**os.environ, "PILLOW_BLOCK_SIZE": block}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def rows_first(image: Image.Image, size: tuple[int, int], *args: Any, **options: Any) -> Any:
    """As Pillow 12 does it, whatever the sizes."""
    half = REAL(image, (size[0], image.height), *args, **options)
    return REAL(half, size, *args, **options)


def columns_first(image: Image.Image, size: tuple[int, int], *args: Any, **options: Any) -> Any:
    """As no Pillow does it."""
    half = REAL(image, (image.width, size[1]), *args, **options)
    return REAL(half, size, *args, **options)


REAL = Image.Image.resize


@vectorised
@pytest.mark.usefixtures("fresh")
def test_the_order_of_passes_is_that_of_the_installed_pillow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tall = made(300, 500)
    monkeypatch.setattr(Image.Image, "resize", rows_first)
    expected = pillow_pixels(tall, 224, 224, BICUBIC)
    assert resize._pass_order(torch) is resize._RULES[1]
    assert np.array_equal(to_planes(tall, 224, 224, BICUBIC), expected)
    # The two orders differ, or this test would show nothing.
    monkeypatch.setattr(Image.Image, "resize", columns_first)
    assert not np.array_equal(expected, pillow_pixels(tall, 224, 224, BICUBIC))


@pytest.mark.usefixtures("fresh")
def test_an_unknown_pillow_is_used_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    image = made(500, 300)
    monkeypatch.setattr(Image.Image, "resize", columns_first)
    assert resize._pass_order(torch) is None
    expected = pillow_pixels(image, 224, 224, BICUBIC)
    assert np.array_equal(to_planes(image, 224, 224, BICUBIC), expected)


@pytest.mark.usefixtures("fresh")
def test_a_torch_without_the_kernel_leaves_it_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    image = made(500, 300)
    monkeypatch.setattr(torch.ops, "quantized", object())
    assert resize._pass_order(torch) is None
    found = to_planes(image, 224, 224, BICUBIC)
    assert np.array_equal(found, pillow_pixels(image, 224, 224, BICUBIC))


@pytest.mark.usefixtures("fresh")
def test_machines_without_vectors_leave_it_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert resize._pass_order(torch) is None


@dataclass(frozen=True)
class WithoutPillow(Made):
    """An image in whose process Pillow resizes no more."""

    def read(self) -> bytes:
        Image.Image.resize = forbidden  # type: ignore[method-assign, assignment]
        return self.data


@vectorised
def test_workers_use_the_vectorised_pixels() -> None:
    data = [encoded(made(400, 300, seed=n), "PNG") for n in range(3)]
    refs = [Made("a", "/a", data[0]), WithoutPillow("b", "/b", data[1]), Made("c", "/c", data[2])]
    with BatchStream(refs, PixelSpec(224, 224), LoaderOptions(3, 1)) as batches:
        (batch,) = batches
    assert [item.error for item in batch.items] == [None, None, None]
    for found, number in zip(batch.pixels, range(3), strict=True):
        expected = pillow_pixels(made(400, 300, seed=number), 224, 224, BICUBIC)
        assert np.array_equal(found.numpy(), expected)
