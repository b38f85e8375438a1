"""Checkpoints built once a session, and the transformers classes they are held against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration

from blip2cli.images.preprocess import normalize
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.layers.packed_linear import can_pack
from blip2cli.model.loading.load import load_model
from blip2cli.model.nets.blip2 import GenerationModel
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.vision.features import ImageFeatures
from blip2cli.model.wrapper import Blip2
from blip2cli.options import Dtype, ModelOptions
from blip2cli.system.library_logging import silence_libraries
from tests.checkpoints import IMAGE_SIZE, tiny_random_opt, tiny_random_t5

IMAGES = 16


@dataclass(frozen=True)
class Pair:
    """Our wrapper and transformers' own model on one checkpoint, and some images."""

    directory: Path
    ours: Blip2
    theirs: Blip2ForConditionalGeneration
    pixels: Tensor  # uint8 [IMAGES, 3, H, W]
    features: ImageFeatures

    @property
    def pixel_values(self) -> Tensor:
        return normalize(self.pixels, self.ours.spec, torch.float32)


def images(count: int = IMAGES, size: int = IMAGE_SIZE, seed: int = 5) -> Tensor:
    """Random pictures of flat patches: unlike one another, unlike noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=generator)
    return coarse.repeat_interleave(size // 4, 2).repeat_interleave(size // 4, 3)


def pair(directory: Path, dtype: Dtype = "float32") -> Pair:
    if dtype == "bfloat16" and not can_pack(torch.device("cpu"), torch.bfloat16):
        pytest.skip("oneDNN has no bfloat16 here")
    ours = Blip2.load(ModelOptions(model=str(directory), device="cpu", dtype=dtype))
    with silence_libraries():
        theirs = Blip2ForConditionalGeneration.from_pretrained(directory).eval()
    pixels = images()
    return Pair(directory, ours, theirs, pixels, ours.features(pixels))


def plain(directory: Path, dtype: torch.dtype = torch.float32) -> GenerationModel:
    """The weights as they are in the file, neither joined nor packed."""
    placement = Placement(torch.device("cpu"), dtype, "")
    model = load_model(inspect_checkpoint(directory), placement, plain=True)
    assert isinstance(model, GenerationModel)
    return model


@pytest.fixture(scope="session")
def opt_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_random_opt(tmp_path_factory.mktemp("checkpoints") / "opt")


@pytest.fixture(scope="session")
def t5_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_random_t5(tmp_path_factory.mktemp("checkpoints") / "t5")


@pytest.fixture(scope="session")
def opt(opt_directory: Path) -> Pair:
    return pair(opt_directory)


@pytest.fixture(scope="session")
def t5(t5_directory: Path) -> Pair:
    return pair(t5_directory)


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """OPT as wide as the embedded model: other widths meet other kernels."""
    return pair(tiny_random_opt(tmp_path_factory.mktemp("checkpoints") / "wide", width=128))


@pytest.fixture(scope="session")
def half(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """OPT in bfloat16, so wide that kernels cut the sums of a product into pieces."""
    directory = tiny_random_opt(tmp_path_factory.mktemp("checkpoints") / "half", width=640)
    return pair(directory, "bfloat16")


@pytest.fixture(scope="session")
def half_t5(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The same with T5."""
    directory = tiny_random_t5(tmp_path_factory.mktemp("checkpoints") / "half-t5", width=640)
    return pair(directory, "bfloat16")


@pytest.fixture(params=["opt", "t5", "wide", "half", "half_t5"])
def every(request: pytest.FixtureRequest) -> Pair:
    """Both families, a wider model, and both in bfloat16."""
    value: Pair = request.getfixturevalue(request.param)
    return value


@pytest.fixture(params=["opt", "t5"])
def either(request: pytest.FixtureRequest) -> Pair:
    """Both families, one after the other."""
    value: Pair = request.getfixturevalue(request.param)
    return value


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Kernels split their rows by the number of threads, so bits are compared under several."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
