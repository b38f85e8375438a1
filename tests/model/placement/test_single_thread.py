from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blip2cli.model.layers.packed_linear import can_pack
from blip2cli.model.placement.single_thread import needs_single_thread, single_thread
from blip2cli.model.retrieval import Pair
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, ModelOptions
from tests.model.large_model import as_if_large
from training.random_scenes import random_scene


@pytest.fixture
def several() -> Iterator[int]:
    """A number of torch's threads that is not 1."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def test_one_thread_and_then_as_before(several: int) -> None:
    def fail() -> None:
        with single_thread():
            assert torch.get_num_threads() == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == several


@pytest.mark.parametrize("fixed", [True, False])
def test_a_small_model_runs_single_threaded_where_threads_decide_the_bits(
    fixed: bool, several: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "blip2cli.model.placement.single_thread.has_fixed_gemm_rows", lambda model: fixed
    )
    seen: list[int] = []

    def count(*arguments: Any) -> None:
        seen.append(torch.get_num_threads())

    writer = Blip2.load(ModelOptions(model="tiny", device="cpu", dtype="float32"))
    matcher = Blip2.load(ModelOptions(model="tiny-itm", device="cpu", dtype="float32"))
    assert matcher.retrieval is not None
    for model in (writer.model, matcher.model):
        for module in model.modules():
            module.register_forward_pre_hook(count)
    pixels = torch.zeros(1, 3, writer.spec.height, writer.spec.width, dtype=torch.uint8)
    features, others = writer.features(pixels), matcher.features(pixels)
    prompt = Prompt(0, "Question: what is it? Answer:", "it")
    pairs = [Pair(0, "a cat")]
    calls = (
        lambda: writer.generate(features, [prompt], DecodeOptions(max_new_tokens=2)),
        lambda: writer.score(features, [prompt], [["a cat", "a dog"]]),
        lambda: writer.scores(features, "a photo of"),
        lambda: writer.text_states(["a cat"]),
        lambda: matcher.retrieval.contrastive_scores(others, pairs),
        lambda: matcher.retrieval.matching_logits(others, pairs),
        lambda: matcher.retrieval.multimodal(others, pairs),
        lambda: matcher.retrieval.project_images(others),
        lambda: matcher.retrieval.project_texts(["a dog"]),
        lambda: matcher.retrieval.text_states(["a dog"]),
    )
    assert set(seen) == {1 if fixed else several}
    for call in calls:
        seen.clear()
        call()
        assert set(seen) == {1 if fixed else several}
    assert torch.get_num_threads() == several


def test_a_larger_model_has_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Blip2.load(ModelOptions(model="tiny", device="cpu", dtype="float32"))
    assert not needs_single_thread(model.model)  # float32
    monkeypatch.setattr(
        "blip2cli.model.placement.single_thread.has_fixed_gemm_rows", lambda model: True
    )
    assert needs_single_thread(model.model)
    assert not needs_single_thread(as_if_large(model.model))


def scenes(count: int, size: tuple[int, int]) -> Tensor:
    drawn = [np.array(random_scene(np.random.default_rng(seed), size)[0]) for seed in range(count)]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)


@pytest.mark.skipif(
    not can_pack(torch.device("cpu"), torch.bfloat16), reason="oneDNN has no bfloat16 here"
)
def test_rows_of_a_small_model_are_the_same_with_any_number_of_threads() -> None:
    model = Blip2.load(ModelOptions(model="tiny", device="cpu", dtype="bfloat16"))
    pixels = scenes(128, (model.spec.height, model.spec.width))  # twice as many as there are slots
    prompts = [Prompt(number, None, str(number)) for number in range(len(pixels))]
    before, written = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            written.append(model.generate(model.features(pixels), prompts, DecodeOptions()))
    finally:
        torch.set_num_threads(before)
    assert written[0] == written[1] == written[2]
