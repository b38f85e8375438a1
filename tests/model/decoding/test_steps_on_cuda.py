"""Kernels of decode steps and refills, and what the host waits for, counted on the pretended
device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from blip2cli.model.decoding.requests import DecodeRequest
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, ModelOptions
from tests.instruct_checkpoints import tiny_random_instruct_t5, tiny_random_vicuna
from tests.model.conftest import images
from tests.pretend import pretended, what_is_missing

MISSING = what_is_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

# Kernels of a recorded step beside those of its layers, and those of each layer.
KERNELS = {"opt": (11, 10), "t5": (9, 14)}


@pytest.mark.parametrize("family", KERNELS)
def test_a_step_is_few_kernels(family: str, request: pytest.FixtureRequest) -> None:
    directory = request.getfixturevalue(f"{family}_directory")
    options = ModelOptions(str(directory), device="cuda", dtype="bfloat16")
    prompts = [Prompt(number, None, f"{number}") for number in range(16)]
    with pretended() as machine:
        model = Blip2.load(options)
        for _ in range(3):
            model.generate(model.features(images()), prompts, DecodeOptions(max_new_tokens=8))
        assert machine.replays > 5
        kernels = sum(machine.replayed.values()) / machine.replays
        assert machine.errors == []
    language: Any = model.model.language_model
    layers = language.decoder.block if family == "t5" else language.model.decoder.layers
    beside, each = KERNELS[family]
    assert kernels <= beside + each * len(layers), machine.replayed


@pytest.mark.parametrize("family", KERNELS)
def test_rows_of_all_layers_are_moved_together(family: str, request: pytest.FixtureRequest) -> None:
    directory = request.getfixturevalue(f"{family}_directory")
    requests = [DecodeRequest(image, (2,), 4, 4) for image in range(4)]
    with pretended() as machine:
        model = Blip2.load(ModelOptions(str(directory), device="cuda", dtype="bfloat16"))
        session = model._session(model.features(images()))
        with torch.inference_mode():
            slots = session.open_slots(session.slot_shape(requests[0]), 8)
            slots.prefill(range(4), requests)
            before, waits = sum(machine.kernels.values()), len(machine.waits)
            slots.reorder([1, 3], [0, 2], 2)
            assert sum(machine.kernels.values()) - before <= 1 + 2  # one copy of the places
            assert len(machine.waits) == waits


@pytest.mark.parametrize("family", KERNELS)
def test_streamed_projections_are_joined_there(family: str, request: pytest.FixtureRequest) -> None:
    directory = str(request.getfixturevalue(f"{family}_directory"))
    prompts = [Prompt(number, None, f"{number}") for number in range(8)]
    limits = DecodeOptions(max_new_tokens=5)
    cpu = Blip2.load(ModelOptions(directory, device="cpu", dtype="float32"))
    want = cpu.generate(cpu.features(images()), prompts, limits)
    little = ModelOptions(
        directory, device="cuda", dtype="float32", max_memory="cuda:0=250KB,cpu=8GB"
    )
    with pretended() as machine:
        model = Blip2.load(little)
        assert model.model.stream is not None
        found = model.generate(model.features(images()), prompts, limits)
        assert machine.errors == []
    assert [text.tokens for (text,) in found] == [text.tokens for (text,) in want]


@pytest.mark.parametrize("family", ["vicuna", "instruct_t5"])
def test_an_instructblip_writes_what_it_writes_on_the_cpu(family: str, tmp_path: Path) -> None:
    make = {"vicuna": tiny_random_vicuna, "instruct_t5": tiny_random_instruct_t5}[family]
    directory = str(make(tmp_path / family))
    prompts = [Prompt(number, f"what is {number}?", f"{number}") for number in range(8)]
    for options in (DecodeOptions(max_new_tokens=5), DecodeOptions(max_new_tokens=4, num_beams=2)):
        cpu = Blip2.load(ModelOptions(directory, device="cpu", dtype="float32"))
        want = cpu.generate(cpu.features(images()), prompts, options)
        with pretended() as machine:
            gpu = Blip2.load(ModelOptions(directory, device="cuda", dtype="float32"))
            for _ in range(3):
                found = gpu.generate(gpu.features(images()), prompts, options)
            assert machine.errors == []
            assert machine.replays
        assert [text.tokens for (text,) in found] == [text.tokens for (text,) in want]
