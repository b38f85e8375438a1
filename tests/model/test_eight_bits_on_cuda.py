"""Eight bits, GPUs without bfloat16, and models that do not fit, on a pretended CUDA device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blip2cli.cli.app import call
from blip2cli.doctor.examine import examine
from blip2cli.errors import OptionError
from blip2cli.model.quantize import library_layers
from blip2cli.model.quantize.cuda_layers import CudaLinear
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, DoctorOptions, ModelOptions
from tests.model.quantize.test_cuda_layers import with_fp8
from tests.pretend import pretended
from training.evaluate import held_out_scenes

SCENES = 8


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    scenes = held_out_scenes(SCENES, seed=79)
    found = torch.from_numpy(np.stack([picture for picture, _ in scenes]))
    return found.permute(0, 3, 1, 2).contiguous()


def load(name: str, **options: Any) -> Blip2:
    return Blip2.load(ModelOptions(name, **options))


def read(model: Blip2, pixels: Tensor) -> list[str]:
    features = model.features(pixels)
    prompts = [Prompt(number, None, str(number)) for number in range(len(pixels))]
    options = DecodeOptions(max_new_tokens=8)
    return [text.text for (text,) in model.generate(features, prompts, options)]


@pytest.mark.parametrize(
    ("name", "dtype", "quantize"),
    [
        ("tiny", "float32", "int8"),
        pytest.param("tiny-t5", "bfloat16", "int8", marks=pytest.mark.external),
        pytest.param("tiny", "bfloat16", "fp8", marks=with_fp8),
    ],
)
def test_steps_are_captured_and_wait_for_nothing(
    name: str, dtype: str, quantize: str, pixels: Tensor
) -> None:
    exact = read(load(name, device="cpu", dtype="float32"), pixels)
    with pretended(devices=2) as machine:
        model = load(name, device="cuda:1", dtype=dtype, quantize=quantize)
        layers = [each for each in model.model.modules() if isinstance(each, CudaLinear)]
        assert len(layers) > 20
        assert all(
            layer.numbers.nbytes == layer.in_features * layer.out_features for layer in layers
        )
        machine.waits.clear()
        machine.kernels.clear()
        texts = [read(model, pixels) for _ in range(2)]
        assert machine.replayed["_int_mm" if quantize == "int8" else "_scaled_mm"]
        assert machine.replays
        assert model.trouble is None
        assert not [each for each in machine.waits if "cuda_layers" in each[1]]
        assert machine.errors == []
    assert texts[0] == texts[1]
    assert sum(one == two for one, two in zip(exact, texts[1], strict=True)) >= SCENES - 1


def test_an_old_gpu_multiplies_in_its_own_precision(
    pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_layers, "find_spec", lambda name: None)
    with pretended(capability=(7, 5)) as machine:  # a T4
        model = load("tiny", device="cuda", quantize="int8")
        assert model.dtype is torch.float16
        assert read(model, pixels[:1])
        assert machine.kernels["_int_mm"]
        with pytest.raises(OptionError, match=r"compute capability 8\.9 on"):
            load("tiny", device="cuda", dtype="bfloat16", quantize="fp8")
    refused = pytest.raises(OptionError, match="multiplies no such numbers itself needs the pack")
    with pretended(capability=(7, 0)), refused:  # a V100
        load("tiny", device="cuda", quantize="int8")


@pytest.mark.external
def test_doctor_rounds_states_as_decode_steps_do() -> None:
    with pretended() as machine:
        report = examine(DoctorOptions("tiny", device="cuda", dtype="float32", quantize="int8"))
        assert machine.kernels["_int_mm"]
    found = {finding.check: finding for finding in report.findings}
    assert found["precision"].status == "ok", found["precision"]


def test_a_t5_that_does_not_fit_in_float32_runs_in_bfloat16(pixels: Tensor) -> None:
    with pretended(capability=(7, 5)) as machine:
        model = load("tiny-t5", device="cuda")
        assert model.dtype is torch.float32
        taken = machine.peak
        del model
    with pretended(capacity=int(0.75 * taken), capability=(7, 5)) as machine:
        model = load("tiny-t5", device="cuda")
        assert model.dtype is torch.bfloat16
        assert model.reason.endswith("), bfloat16 instead, which takes half the memory")
        assert model.features(pixels[:1]).language_inputs.dtype is torch.bfloat16
        assert machine.errors == []


def test_a_model_that_does_not_fit_ends_with_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, samples = tmp_path / "captions.jsonl", Path(__file__).parents[2] / "sample_images"
    with pretended(capacity=1 << 20):
        words = ["caption", str(samples), "-o", str(out), "--model", "tiny", "--device", "cuda"]
        assert call(words) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error == (
        "blip2cli: cuda has too little memory for tiny with --dtype bfloat16, which takes about "
        "6 MiB; use --quantize int8 or --offload FOLDER, which reads layers from disk."
    )
