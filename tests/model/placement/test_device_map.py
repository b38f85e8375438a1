"""Whole layers are placed, those first that run most often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from blip2cli.errors import ModelError, OptionError
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.nets.blip2 import Blip2Net, build
from blip2cli.model.placement.device_map import DeviceMap, always_in_memory, place_layers
from blip2cli.options import ModelOptions
from blip2cli.options.values import parse_max_memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def model(t5_directory: Path) -> Blip2Net:
    with torch.device("meta"):
        return build(inspect_checkpoint(t5_directory).model_config)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def place(model: Blip2Net, main: torch.device, **options: Any) -> DeviceMap:
    return place_layers(model, ModelOptions(**options), main, torch.float32)


def test_layers_of_the_language_model_come_first(model: Blip2Net) -> None:
    stays, layer = always_in_memory(model, torch.float32)
    found = place(model, CPU, max_memory=f"cpu={stays + 4 * layer}")
    decoder = [where for name, where in found.layers.items() if "decoder" in name]
    assert decoder == ["cpu", "cpu"]
    assert found.layers["vision_model.encoder.layers.1"] == "disk"
    assert found.streamed("vision_model.encoder.layers.1")
    assert not found.streamed("language_model.decoder.block.0")


@pytest.mark.usefixtures("two_gpus")
def test_gpus_then_memory_then_disk(model: Blip2Net) -> None:
    stays, layer = always_in_memory(model, torch.float32)
    layer = layer * 5 // 4  # with its norms
    sizes = f"cuda:0={stays + 3 * layer},cuda:1={layer},cpu={2 * layer}"
    found = place(model, CUDA, max_memory=sizes)
    assert list(dict.fromkeys(found.layers.values())) == ["cuda:0", "cuda:1", "cpu", "disk"]
    assert found.main == torch.device("cuda:0")
    # Layers in memory are brought to the GPU, too.
    in_memory = next(name for name, where in found.layers.items() if where == "cpu")
    assert found.streamed(in_memory)
    assert found.device(f"{in_memory}.weight") == found.main
    elsewhere = next(name for name, where in found.layers.items() if where == "cuda:1")
    assert found.device(f"{elsewhere}.weight") == torch.device("cuda:1")
    assert found.device("query_tokens") == found.main


@pytest.mark.usefixtures("two_gpus")
def test_balanced_fills_gpus_evenly(model: Blip2Net) -> None:
    found = place(model, CUDA, device_map="balanced", max_memory="cuda:0=1GiB,cuda:1=1GiB")
    counts = [list(found.layers.values()).count(gpu) for gpu in ("cuda:0", "cuda:1")]
    assert sum(counts) == len(found.layers)
    assert min(counts) >= len(found.layers) // 3


def test_what_has_no_room_is_refused(model: Blip2Net) -> None:
    with pytest.raises(OptionError, match=r"embeddings, norms and two layers; .*at least 1MiB"):
        place(model, CPU, max_memory="cpu=10KB")


def test_devices_that_are_not_there(model: Blip2Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="names cuda:0, but torch sees no GPU"):
        place(model, CPU, max_memory="cuda=1GiB,cpu=1GiB")


@pytest.mark.usefixtures("two_gpus")
def test_a_device_that_gets_nothing(model: Blip2Net) -> None:
    with pytest.raises(OptionError, match=r"gives nothing to cuda:0.*add cuda:0=SIZE"):
        place(model, CUDA, max_memory="cpu=1GiB")


def test_other_devices_are_refused(model: Blip2Net) -> None:
    with pytest.raises(OptionError, match="not on mps"):
        place(model, torch.device("mps"), device_map="auto")


def test_sizes() -> None:
    found = parse_max_memory("cpu = 1.5GiB, cuda:1=20GB,cuda=512MiB")
    assert found == {"cuda:0": 512 << 20, "cuda:1": 20 * 10**9, "cpu": 3 << 29}
    assert list(found) == ["cuda:0", "cuda:1", "cpu"]


@pytest.mark.parametrize(
    "text", ["", "20GiB", "cpu=", "cpu=lots", "gpu=1GiB", "cpu=1GiB,cpu=2GiB", "cuda:x=1", "cpu=-1"]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(OptionError, match=r"max_memory.*write cuda:0=20GiB,cpu=60GiB"):
        ModelOptions(max_memory=text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:0,cuda:1"}, "asks for several models"),
        ({"device": "cuda:all"}, "asks for several models"),
        ({"quantize": "int8"}, "quantize needs a model that stays"),
        ({"compile": True}, "compile needs a model that stays"),
    ],
)
@pytest.mark.parametrize(
    "placing", [{"device_map": "auto"}, {"max_memory": "cpu=1GiB"}, {"offload": "layers"}]
)
def test_what_does_not_go_together(
    options: dict[str, Any], placing: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        ModelOptions(**options, **placing)
