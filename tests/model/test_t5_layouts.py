"""Flan-T5 checkpoints as they lie on the hub, of every age, write as in transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration
from transformers.models.blip_2.processing_blip_2 import Blip2Processor

from blip2cli.model.families.t5.config import T5Config
from blip2cli.model.generation import Generated
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.vision.features import ImageFeatures
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, ModelOptions
from blip2cli.system.library_logging import silence_libraries
from tests.hub_files import reference
from tests.hub_t5 import (
    T5_END,
    T5_IMAGE_TOKEN,
    T5_QUERIES,
    older_t5,
    published_t5,
    t5_prompt_ids,
)
from tests.model.conftest import images, plain

QUESTION = "Question: how many cats are there? Short answer:"
TEXTS = (None, "a photo of", QUESTION, f"Question: what is it? Answer: a car. {QUESTION}")
GREEDY = DecodeOptions(max_new_tokens=8)
BEAMS = DecodeOptions(max_new_tokens=8, num_beams=5)
RULES: dict[str, Any] = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "min_new_tokens": 3}
RULED = DecodeOptions(max_new_tokens=8, num_beams=3, length_penalty=-1.0, **RULES)
AGES: dict[str, Callable[[Path], Path]] = {
    "published": published_t5,
    "older": older_t5,
    "first": lambda directory: older_t5(directory, pickled=True),
}


@dataclass(frozen=True)
class Layout:
    """One age's checkpoint, read by us and by transformers, and four images."""

    directory: Path
    ours: Blip2
    theirs: Blip2ForConditionalGeneration
    pixels: Tensor  # uint8 [4, 3, H, W]
    features: ImageFeatures

    def expected(self, image: int, text: str | None, options: DecodeOptions) -> list[int]:
        """What transformers writes about one image alone."""
        usual = asdict(DecodeOptions())
        settings = {k: v for k, v in asdict(options).items() if v != usual[k]}
        generate = self._published if self.theirs.config.image_token_index else self._older
        with silence_libraries():
            (ids,) = generate(image, text, **settings).tolist()
        assert ids[0] == 0  # the decoder's start
        return list(ids[1:])

    @cached_property
    def processor(self) -> Any:
        return Blip2Processor.from_pretrained(self.directory)

    def _published(self, image: int, text: str | None, **settings: Any) -> Tensor:
        """By the documentation's calls."""
        picture = Image.fromarray(self.pixels[image].permute(1, 2, 0).numpy())
        inputs = self.processor(images=picture, text=text, return_tensors="pt")
        if text is not None:
            ids = [T5_IMAGE_TOKEN] * T5_QUERIES + t5_prompt_ids(text)
            assert inputs["input_ids"].tolist() == [ids]
        return self.theirs.generate(**inputs, **settings)

    def _older(self, image: int, text: str | None, **settings: Any) -> Tensor:
        """From embeddings: its own call needs an image token."""
        ids = torch.tensor([[T5_END] if text is None else t5_prompt_ids(text)])
        read = self.features.language_inputs[image : image + 1]
        embeds = torch.cat((read, self.theirs.get_input_embeddings()(ids)), dim=1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        written: Tensor = self.theirs.language_model.generate(
            inputs_embeds=embeds, attention_mask=mask, **settings
        )
        return written


@pytest.fixture(scope="module", params=AGES)
def layout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    directory = AGES[request.param](tmp_path_factory.mktemp("hub") / request.param)
    ours = Blip2.load(ModelOptions(str(directory), device="cpu", dtype="float32"))
    with silence_libraries():
        theirs = reference(directory)
    pixels = images(4)
    return Layout(directory, ours, theirs, pixels, ours.features(pixels))


def test_what_the_files_say_is_what_acts(layout: Layout) -> None:
    config = layout.ours.model.config
    published = "published" in layout.directory.name
    assert config.image_token_index == (T5_IMAGE_TOKEN if published else None)
    assert layout.ours.model.query_tokens.shape[1] == config.num_query_tokens == T5_QUERIES
    assert isinstance(config.text_config, T5Config)
    assert config.text_config.activation == "gelu"
    assert not config.text_config.scales_output
    language = plain(layout.directory).language_model
    assert not torch.equal(language.lm_head.weight, language.shared.weight)
    if layout.directory.name != "first":
        stored: dict[str, Tensor] = {}
        for file in layout.directory.glob("model-*.safetensors"):
            stored |= load_file(file)
        assert torch.equal(stored["language_model.lm_head.weight"], language.lm_head.weight)
        assert torch.equal(stored["language_model.shared.weight"], language.shared.weight)


def test_prompts_and_texts_are_read_as_t5_reads_them(layout: Layout) -> None:
    codec = layout.ours.codec
    assert codec.encode(None) == codec.encode("") == (T5_END,)
    for text in (QUESTION, "  how   many cats ", "a <extra_id_3> cat", "ö"):
        assert list(codec.encode(text)) == t5_prompt_ids(text)
    ids = codec.encode("two <extra_id_0> cats")
    assert 32099 in ids  # the first sentinel is the last of the vocabulary
    assert codec.decode([0, *ids]).split() == ["two", "cats"]


@pytest.mark.parametrize("options", [GREEDY, BEAMS, RULED], ids=["greedy", "beams", "ruled"])
def test_unequal_prompts_together_are_those_of_transformers_alone(
    layout: Layout, options: DecodeOptions
) -> None:
    # Older ones hold the same model, see below.
    numbers = range(4 if "published" in layout.directory.name else 2)
    asked = [(image, text) for image in numbers for text in TEXTS]
    prompts = [Prompt(image, text, f"{image}") for image, text in asked]
    assert len({len(layout.ours.codec.encode(text)) for text in TEXTS}) == len(TEXTS)
    together = layout.ours.generate(layout.features, prompts, options)
    for (image, text), (written,) in zip(asked, together, strict=True):
        assert list(written.tokens) == layout.expected(image, text, options), (image, text)
        assert written == alone(layout, image, text, options)
    assert len({len(written.tokens) for (written,) in together}) > 2
    assert len({written.tokens for (written,) in together}) > len(asked) // 2


def alone(layout: Layout, image: int, text: str | None, options: DecodeOptions) -> Generated:
    """What we write about one image that is by itself from its pixels on."""
    features = layout.ours.features(layout.pixels[image : image + 1])
    ((written,),) = layout.ours.generate(features, [Prompt(0, text, f"{image}")], options)
    return written


def test_every_age_writes_the_same(tmp_path: Path) -> None:
    # The layouts hold one model; how it is stored makes no difference to what it writes.
    written = []
    for name, make in AGES.items():
        model = Blip2.load(ModelOptions(str(make(tmp_path / name)), device="cpu", dtype="float32"))
        prompts = [Prompt(image, QUESTION, f"{image}") for image in range(4)]
        features = model.features(images(4))
        written.append([model.generate(features, prompts, o) for o in (GREEDY, BEAMS, RULED)])
    assert written[0] == written[1] == written[2]
