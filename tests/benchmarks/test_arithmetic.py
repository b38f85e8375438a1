"""The arithmetic of the limit counts what torch counts when transformers' model runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from arithmetic import Part, Texts, image_parts, limit, text_parts
from machine import Machine
from torch.utils.flop_counter import FlopCounterMode
from transformers import Blip2ForConditionalGeneration

from tests.checkpoints import IMAGE_SIZE, QUERIES, tiny_random_opt, tiny_random_t5

IMAGES, PROMPT = 3, 7


@pytest.fixture(scope="module", params=[tiny_random_opt, tiny_random_t5])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path: Path = request.param(tmp_path_factory.mktemp("model"))
    # The eager attention is made of products that the counter knows.
    loaded = Blip2ForConditionalGeneration.from_pretrained(path, attn_implementation="eager")
    return loaded.eval().requires_grad_(False)


def counted(work: Callable[[], Any]) -> tuple[int, Any]:
    with FlopCounterMode(display=False) as counter:
        found = work()
    return counter.get_total_flops(), found


def flops(parts: list[Part]) -> float:
    return sum(part.flops for part in parts)


def texts(length: int, **more: Any) -> Texts:
    return Texts((PROMPT,), ((length,),) * IMAGES, **more)


def of_texts(model: Any, wanted: Texts) -> float:
    return flops(text_parts(model.config, "float32", IMAGES, IMAGES, wanted)[1:])


def test_the_image_side_is_counted_exactly(model: Any) -> None:
    pixels = torch.zeros(IMAGES, 3, IMAGE_SIZE, IMAGE_SIZE)
    total, _ = counted(lambda: model.get_image_features(pixels, return_dict=True))
    projection = text_parts(model.config, "float32", IMAGES, IMAGES, texts(1))[0]
    assert flops([*image_parts(model.config, IMAGES), projection]) == total


def test_reading_and_each_further_token_are_counted(model: Any) -> None:
    t5 = model.config.text_config.is_encoder_decoder
    width = model.get_input_embeddings().weight.shape[1]
    read = QUERIES + PROMPT
    embeds = torch.zeros(IMAGES, read, width)
    one = torch.zeros(IMAGES, 1, dtype=torch.long)
    first = {"decoder_input_ids": one} if t5 else {"logits_to_keep": 1}
    total, found = counted(lambda: model.language_model(inputs_embeds=embeds, **first))
    config = model.config.text_config
    if t5:
        # A decoder's only position sees itself; the arithmetic says half of that.
        missing = 2 * config.num_decoder_layers * config.num_heads * config.d_kv * IMAGES
    else:
        # Eager attention looks at all positions; only half of them, and the images' alone by the
        # images', need be looked at.
        seen = read**2 - (QUERIES**2 / 2 + PROMPT * (QUERIES + PROMPT / 2))
        missing = 4 * config.num_hidden_layers * config.hidden_size * seen * IMAGES
    assert of_texts(model, texts(1)) + missing == pytest.approx(total, rel=1e-6)

    cache: dict[str, Any] = {"past_key_values": found.past_key_values}
    if t5:
        cache |= {"decoder_input_ids": one, "encoder_outputs": (embeds,)}
    else:
        cache["input_ids"] = one
    step, _ = counted(lambda: model.language_model(**cache))
    # The cache grows from step to step, by less than a hundredth of the work.
    assert of_texts(model, texts(2)) - of_texts(model, texts(1)) == pytest.approx(step, rel=0.01)


def test_choices_share_their_prompt_and_beams_do_not_share_steps(model: Any) -> None:
    def choices(*lengths: int) -> float:
        return of_texts(model, Texts((PROMPT,), (), choices=lengths))

    assert choices(1, 1) == choices(1)  # one token each: all is said after the prompt
    longer = choices(1, 2) - choices(1)
    step = of_texts(model, texts(2)) - of_texts(model, texts(1))
    assert longer == pytest.approx(step, rel=0.02)
    beams = of_texts(model, texts(9, beams=5)) - of_texts(model, texts(1, beams=5))
    steps = of_texts(model, texts(9)) - of_texts(model, texts(1))
    assert beams == pytest.approx(5 * steps, rel=0.01)


def test_what_prompts_begin_with_is_read_once(model: Any) -> None:
    def reading(prompts: tuple[int, ...], repeated: int) -> float:
        config = model.config
        lengths = ((1,) * len(prompts),) * IMAGES
        wanted = Texts(prompts, lengths, repeated=repeated)
        parts = text_parts(config, "float32", IMAGES, IMAGES, wanted)
        return sum(part.flops for part in parts if part.name == "prefill of prompts")

    if model.config.text_config.is_encoder_decoder:  # nothing of a prompt can be shared
        assert of_texts(model, texts(9, repeated=4)) == of_texts(model, texts(9))
        return
    # Three prompts of seven tokens that begin with the same five: nine tokens behind them.
    assert reading((7, 7, 7), 10) == pytest.approx(reading((11,), 0), rel=0.02)


def test_a_step_takes_as_long_as_the_slower_of_products_and_memory() -> None:
    machine = Machine("", 2, {"float32": 100.0}, 10.0)
    assert limit([Part("a", 300), Part("b", 100, 50)], machine, "float32") == 3 + 5


def test_a_text_needs_a_step_a_token_however_many_share_it() -> None:
    two = Texts((1,), ((4,), (10,)))
    assert two.decode(images_at_once=2) == (2, 3 + 9, 9)  # the longer one alone decides
    assert two.decode(images_at_once=1) == (2, 12, 12)
