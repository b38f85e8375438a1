"""CUDA devices that torch cannot use, or that differ from one another."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2cli.cli.app import call
from blip2cli.doctor.installation import packages
from blip2cli.errors import ModelError
from blip2cli.model.families import OPT, T5
from blip2cli.model.families.retrieval import RETRIEVAL
from blip2cli.model.placement import cuda_devices
from blip2cli.model.placement.cuda_devices import cuda_trouble
from blip2cli.model.placement.dtype import place
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions
from blip2cli.pipeline.compute.devices import devices

# As torch 2.13 writes them (c10/cuda/CUDAFunctions.cpp).
TOO_OLD = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). "
    "Please update your GPU driver by downloading and installing a new version from the URL: "
    "http://www.nvidia.com/Download/index.aspx Alternatively, go to: https://pytorch.org to "
    "install a PyTorch version that has been compiled with your version of the CUDA driver. "
    "(Triggered internally at /pytorch/c10/cuda/CUDAFunctions.cpp:119.)"
)
MISMATCH = (
    "CUDA initialization: Unexpected error from cudaGetDeviceCount(). Did you run some cuda "
    "functions before calling NumCudaDevices() that might have already set an error? Error 803: "
    "system has unsupported display driver / cuda driver combination (Triggered internally at "
    "/pytorch/c10/cuda/CUDAFunctions.cpp:119.)"
)
NO_GPU = "cudaGetDeviceCount() returned cudaErrorNotSupported, likely running on CPU machine"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What torch warns of when it is asked for devices: once, and then it has none."""
    messages: list[str] = []

    def is_available() -> bool:
        if messages:
            warnings.warn(messages.pop(), UserWarning, stacklevel=2)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(cuda_devices, "_reasons", [])
    return messages


def test_an_old_driver_is_no_silent_run_on_the_cpu(
    driver: list[str], opt_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    driver.append(TOO_OLD)
    with pytest.raises(ModelError) as refused:
        place("cuda", "auto", OPT, 1)
    assert str(refused.value) == (
        "cuda was asked for, but torch cannot use the GPU: the NVIDIA driver on your system is too "
        "old (found version 11040); update its driver, or install a torch that was built for it, "
        "or use device cpu."
    )
    assert refused.value.exit_code == 2
    with pytest.raises(ModelError, match=r"cuda:all was asked for, but .* too old"):
        devices("cuda:all")
    model = Blip2.load(ModelOptions(str(opt_directory), dtype="float32"))
    assert model.reason.startswith("cpu (torch cannot use the GPU), ")
    (remark,) = model.model.remarks
    assert remark == (
        "torch cannot use the GPU, so the model runs on cpu: the NVIDIA driver on your system is "
        "too old (found version 11040); update its driver, or install a torch that was built for it"
    )
    # A CPU that was asked for is no surprise.
    assert Blip2.load(ModelOptions(str(opt_directory), device="cpu")).model.remarks == ()
    doctor = packages()
    assert (doctor.status, doctor.remedy) == ("warn", cuda_devices.REMEDY)
    assert "is too old (found version 11040)" in doctor.found
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (MISMATCH, "system has unsupported display driver / cuda driver combination"),
        (NO_GPU, None),
        ("something else", None),
    ],
)
def test_the_reason_is_the_drivers(driver: list[str], message: str, reason: str | None) -> None:
    driver.append(message)
    assert cuda_trouble() == reason
    placed = place("auto", "float32", OPT, 1)
    assert bool(placed.remarks) == bool(reason)


def test_without_a_gpu_nothing_is_said(driver: list[str]) -> None:
    assert place("auto", "float32", OPT, 1).remarks == ()
    with pytest.raises(ModelError, match="torch sees no GPU; use device cpu"):
        place("cuda:0", "float32", OPT, 1)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each GPU has bfloat16; torch answers for the current one."""
    found = [True, False]
    current = [0]

    @contextmanager
    def device(wanted: torch.device) -> Iterator[None]:
        current.append(wanted.index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found))
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: found[current[-1]]
    )
    return found


@pytest.mark.parametrize("family", [OPT, RETRIEVAL], ids=lambda family: family.name)
def test_the_capability_is_that_of_the_device_meant(gpus: list[bool], family: Any) -> None:
    for device, want in (("cuda", "bfloat16"), ("cuda:0", "bfloat16"), ("cuda:1", "float16")):
        placed = place(device, "auto", family, 1)
        assert placed.dtype is getattr(torch, want), device
        assert placed.smaller is None
    assert placed.reason == "cuda:1 (asked for), float16 (the GPU has no bfloat16)"
    gpus.reverse()
    assert place("cuda:1", "auto", family, 1).dtype is torch.bfloat16


def test_t5_has_the_range_it_needs_on_an_old_gpu(gpus: list[bool]) -> None:
    placed = place("cuda:1", "auto", T5, 1)
    assert placed.dtype is torch.float32
    assert "the GPU has no bfloat16, and float16 does not work with Flan-T5" in placed.reason
    assert placed.smaller is torch.bfloat16  # emulated, where float32 does not fit
    assert place("cuda:1", "float32", T5, 1).smaller is None
    assert place("cuda:0", "auto", T5, 1).dtype is torch.bfloat16


def test_a_full_gpu_is_found_out_when_weights_are_loaded(
    gpus: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(including_emulation: bool) -> bool:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", full)
    assert place("cuda:1", "auto", OPT, 1).dtype is torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        place("cuda:1", "auto", OPT, 1)


def test_a_command_says_it(
    driver: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    driver.append(TOO_OLD)
    samples = Path(__file__).parents[3] / "sample_images"
    words = ["caption", str(samples), "--limit", "1", "--model", "tiny", "-o"]
    assert call([*words, str(tmp_path / "a.jsonl")]) == 0
    assert "Note: torch cannot use the GPU, so the model runs on cpu: " in capfd.readouterr().err
    assert call([*words, str(tmp_path / "b.jsonl"), "--device", "cuda"]) == 2
    assert "or use --device cpu." in capfd.readouterr().err
