"""The compiled vision side, on a CPU by a compiler backend that runs the traced graph as it is."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from blip2cli.errors import OptionError
from blip2cli.images.preprocess import normalize
from blip2cli.model.vision.compiled import CHUNK, CompiledVision, check_compilable
from blip2cli.model.vision.features import ImageFeatures, compute_features
from tests.conftest import environment
from tests.model.conftest import Pair, images, plain

FIELDS = [field.name for field in dataclasses.fields(ImageFeatures)]


def pixels(pair: Pair, count: int) -> Tensor:
    return normalize(images(count), pair.ours.spec, torch.float32)


def test_features_are_those_of_the_plain_model_in_every_batch(opt: Pair) -> None:
    model = plain(opt.directory)
    compiled = CompiledVision("opt", model, opt.ours.spec, backend="eager")
    assert compiled.seconds > 0
    whole = pixels(opt, 2 * CHUNK + 3)
    want = compute_features(model, whole)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for size in (0, 1, 3, CHUNK, CHUNK + 1, 2 * CHUNK + 3):
            got = compiled(whole[:size])
            assert len(got) == size
            for name in FIELDS:
                torch.testing.assert_close(
                    getattr(got, name), getattr(want, name)[:size], rtol=1e-4, atol=1e-5
                )
                assert not getattr(got, name).requires_grad


def test_a_compiler_that_fails_is_quoted(opt: Pair) -> None:
    def fail(graph: object, inputs: object) -> None:
        raise ValueError("no such instruction.\nmore lines")

    with pytest.raises(OptionError, match=r"cannot compile opt here \(.+\); leave compile out\.$"):
        CompiledVision("opt", plain(opt.directory), opt.ours.spec, backend=fail)  # type: ignore[arg-type]


def test_only_cuda_with_triton_is_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("cpu", "mps"):
        with pytest.raises(OptionError, match=f"compile works on CUDA only, not on {device}; leav"):
            check_compilable(torch.device(device))
    monkeypatch.setattr("blip2cli.model.vision.compiled.find_spec", lambda name: None)
    with pytest.raises(OptionError, match="needs the package triton: pip install triton"):
        check_compilable(torch.device("cuda"))
    monkeypatch.setattr("blip2cli.model.vision.compiled.find_spec", lambda name: name)
    check_compilable(torch.device("cuda"))


def test_without_the_option_the_compiler_is_never_imported(tmp_path: Path) -> None:
    script = """
import sys, torch
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions
model = Blip2.load(ModelOptions("tiny", device="cpu"))
model.features(torch.zeros((1, 3, model.spec.height, model.spec.width), dtype=torch.uint8))
print([name for name in ("torch._dynamo", "torch._inductor", "blip2cli.model.vision.compiled")
       if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
