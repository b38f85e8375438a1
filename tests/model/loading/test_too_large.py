"""Models that do not fit into memory: halved where the precision was not asked for, else one
sentence."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.loading import load as loading
from blip2cli.model.loading.load import load_model
from blip2cli.model.loading.too_large import too_large
from blip2cli.model.placement.dtype import Placement
from blip2cli.options import ModelOptions
from tests.command import environment

CPU, CUDA = torch.device("cpu"), torch.device("cuda:1")
FLOAT32 = Placement(CPU, torch.float32, "")
ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    OSError(12, "Cannot allocate memory"),
]


def fails_in(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, error: Exception) -> None:
    """Let weights in ``dtype`` run out of memory."""
    fill = loading._fill

    def filled(checkpoint: Any, model: Any, placement: Placement, *more: Any) -> None:
        fill(checkpoint, model, placement, *more)
        if placement.dtype is dtype:
            raise error

    monkeypatch.setattr(loading, "_fill", filled)
    monkeypatch.setattr(loading, "give_back", lambda device: None)  # it takes a while


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_does_not_fit_is_said_in_one_sentence(
    error: Exception, opt_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_in(monkeypatch, torch.float32, error)
    with pytest.raises(ModelError) as refused:
        load_model(inspect_checkpoint(opt_directory), FLOAT32)
    assert refused.value.exit_code == 2
    assert str(refused.value) == (
        f"cpu has too little memory for {opt_directory} with dtype float32, which takes about 0 "
        "MiB; use dtype bfloat16, quantize int8 or offload FOLDER, which reads layers from disk."
    )
    assert refused.value.__context__ is None  # nothing keeps the weights in memory


def test_other_errors_are_not_taken_for_it(
    opt_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_in(monkeypatch, torch.float32, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(ModelError, match=r"cannot be loaded \(shapes cannot be multiplied\)"):
        load_model(inspect_checkpoint(opt_directory), FLOAT32)


def test_the_smaller_precision_is_taken(
    t5_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_in(monkeypatch, torch.float32, ERRORS[1])
    found = inspect_checkpoint(t5_directory)
    model = load_model(found, replace(FLOAT32, smaller=torch.bfloat16))
    assert model.dtype is torch.bfloat16
    assert model.placed == ", bfloat16 instead, which takes half the memory"
    fails_in(monkeypatch, torch.bfloat16, ERRORS[1])
    with pytest.raises(ModelError, match=r"with dtype bfloat16, .*; use quantize int8 or offload"):
        load_model(found, replace(FLOAT32, smaller=torch.bfloat16))


def test_what_was_tried_is_not_advised(opt_directory: Path) -> None:
    found = inspect_checkpoint(opt_directory)
    half = Placement(CUDA, torch.bfloat16, "")
    options = ModelOptions("m", device="cuda:1")

    def remedy(placement: Placement, **given: Any) -> str:
        error = too_large(found, placement, replace(options, **given))
        assert error.problem.startswith("cuda:1 has too little memory for m with ")
        return error.remedy.replace("\x1e", "--").replace("\x1f", "")

    assert remedy(half) == ("use --quantize int8 or --offload FOLDER, which reads layers from disk")
    assert remedy(replace(half, quantize="int8"), quantize="int8") == (
        "use --offload FOLDER instead of --quantize, which reads layers from disk"
    )
    assert remedy(half, max_memory="cuda:1=20GiB") == "use smaller numbers in --max_memory"
    mps = too_large(found, Placement(torch.device("mps"), torch.bfloat16, ""), None)
    assert mps.remedy == "use a smaller model"


LIMITED = """
import resource
from pathlib import Path
from blip2cli.errors import ModelError
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions
from tests.command import environment

tiny = ModelOptions("tiny", device="cpu", dtype="float32")
Blip2.load(ModelOptions("tiny-t5", device="cpu"))  # all that is imported is
pages = int(Path("/proc/self/statm").read_text().split()[0])
for more in (0, 2, 8):
    limit = pages * resource.getpagesize() + (more << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        Blip2.load(tiny)
    except ModelError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
Blip2.load(tiny)
"""


@pytest.mark.external
@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space as on Linux")
def test_memory_that_really_runs_out_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, env=environment(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines
    for line in lines:
        assert line.startswith("cpu has too little memory for tiny with dtype float32, ")
