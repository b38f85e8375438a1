from __future__ import annotations

import time

import pytest
import torch

from blip2cli.errors import ModelError, OptionError
from blip2cli.model.families import OPT, T5
from blip2cli.model.placement import dtype
from blip2cli.model.placement.dtype import place
from blip2cli.model.placement.thresholds import FLOAT32_BELOW


@pytest.mark.parametrize(
    ("instructions", "size", "want", "reason"),
    [
        ("AMX", FLOAT32_BELOW, torch.bfloat16, "AMX"),
        ("AVX512-BF16", FLOAT32_BELOW, torch.bfloat16, "AVX512-BF16"),
        ("AMX", FLOAT32_BELOW - 1, torch.float32, "small"),
        (None, FLOAT32_BELOW, torch.float32, "neither AMX nor AVX512-BF16"),
    ],
)
def test_auto_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
    instructions: str | None,
    size: int,
    want: torch.dtype,
    reason: str,
) -> None:
    monkeypatch.setattr(dtype, "cpu_bfloat16", lambda: instructions)
    monkeypatch.setattr(dtype, "bfloat16_speedup", lambda: 2.25)
    placement = place("cpu", "auto", OPT, size)
    assert placement.dtype is want
    assert reason in placement.reason


def test_instructions_that_do_not_pay_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtype, "cpu_bfloat16", lambda: "AMX")
    monkeypatch.setattr(dtype, "bfloat16_speedup", lambda: 0.9)
    placement = place("cpu", "auto", OPT, FLOAT32_BELOW)
    assert placement.dtype is torch.float32
    assert "quicker here, although the CPU has AMX" in placement.reason


def test_the_gain_is_measured_in_milliseconds() -> None:
    dtype.bfloat16_speedup.cache_clear()
    began = time.perf_counter()
    gain = dtype.bfloat16_speedup()
    assert time.perf_counter() - began < 5  # milliseconds, but on a busy machine
    assert 0.001 < gain < 1000
    assert dtype.bfloat16_speedup() == gain


def test_auto_device_without_others_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    placement = place("auto", "float32", OPT, 1)
    assert placement.device == torch.device("cpu")
    assert placement.reason == "cpu (torch sees no other device), float32 (asked for)"


@pytest.mark.parametrize(("bf16", "want"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_on_a_gpu(monkeypatch: pytest.MonkeyPatch, bf16: bool, want: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    placement = place("auto", "auto", T5, 1)
    assert placement.device == torch.device("cuda")
    assert placement.dtype is want


@pytest.mark.parametrize(
    ("variables", "count", "want"),
    [
        ({}, 4, "cuda"),
        ({"LOCAL_RANK": "2"}, 4, "cuda:2"),
        ({"LOCAL_RANK": "2"}, 1, "cuda"),  # the launcher shows each process a GPU of its own
        ({"LOCAL_RANK": "5"}, 4, "cuda:1"),  # more processes than GPUs
        ({"LOCAL_RANK": "x"}, 4, "cuda"),
        ({"SLURM_LOCALID": "3"}, 4, "cuda:3"),
        ({"SLURM_LOCALID": "0", "LOCAL_RANK": "3"}, 4, "cuda:3"),  # srun torchrun
    ],
)
def test_processes_of_a_launcher_share_the_gpus(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], count: int, want: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(place("auto", "float32", OPT, 1).device) == want


def test_gpus_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="torch sees no GPU; use device cpu"):
        place("cuda", "auto", OPT, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ModelError, match="sees only cuda:0 to cuda:1"):
        place("cuda:2", "auto", OPT, 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelError, match="use device cpu"):
        place("mps", "auto", OPT, 1)


@pytest.mark.parametrize("device", ["gpu", "xla", "cuda:x", ""])
def test_devices_nobody_knows_are_refused(device: str) -> None:
    with pytest.raises(OptionError, match="use auto, cpu, cuda"):
        place(device, "auto", OPT, 1)


def test_float16_is_refused_where_it_does_harm() -> None:
    with pytest.raises(OptionError, match="nonsense; use dtype bfloat16 or float32"):
        place("cpu", "float16", T5, 1)
    with pytest.raises(OptionError, match="slower than float32 on a CPU"):
        place("cpu", "float16", OPT, 1)
