"""How tiny-instruct is built and trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoProcessor,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

from blip2cli.model.instructions import DESCRIBE
from tests.tiny.helpers import WEIGHTS, load_tiny, small_gallery
from training.build import QUERIES
from training.export import INDEX, export
from training.instruct import (
    InstructionMaker,
    Lesson,
    Lessons,
    Recipe,
    build_model,
    build_processor,
    loss_of,
    show,
)
from training.learner import Learner, Pace
from training.texts import Text

PACE = Pace(minutes=10, warm_up=1)
RECIPE = Recipe(scenes=3, sparse=2, shapes=2, texts=3)


@pytest.fixture(scope="module")
def processor() -> InstructBlipProcessor:
    return build_processor(WEIGHTS / "tiny")


@pytest.fixture(scope="module")
def writer() -> Blip2ForConditionalGeneration:
    loaded: Blip2ForConditionalGeneration
    loaded = Blip2ForConditionalGeneration.from_pretrained(WEIGHTS / "tiny-t5")
    return loaded


@pytest.fixture(scope="module")
def matcher() -> Blip2ForImageTextRetrieval:
    loaded: Blip2ForImageTextRetrieval
    loaded = Blip2ForImageTextRetrieval.from_pretrained(WEIGHTS / "tiny-itm")
    return loaded


@pytest.fixture
def model(
    writer: Blip2ForConditionalGeneration, matcher: Blip2ForImageTextRetrieval
) -> InstructBlipForConditionalGeneration:
    return build_model(writer, matcher)


@pytest.fixture(scope="module")
def lessons(processor: InstructBlipProcessor) -> list[Lesson]:
    gallery = small_gallery(load_tiny(), 12, 4)
    return Lessons(gallery, InstructionMaker(processor), seed=0).lessons(RECIPE)


def test_the_qformer_alone_learns_and_begins_as_those_of_its_siblings(
    model: InstructBlipForConditionalGeneration,
    writer: Blip2ForConditionalGeneration,
    matcher: Blip2ForImageTextRetrieval,
) -> None:
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in learning} == {"qformer", "query_tokens"}
    for name, weight in writer.state_dict().items():
        name = name.replace("qformer.layernorm", "qformer.embeddings.layernorm")
        assert torch.equal(weight, model.state_dict()[name]), name
    theirs = matcher.state_dict()
    for name in ("intermediate.dense.weight", "output.LayerNorm.bias"):
        name = f"qformer.encoder.layer.3.{name}"
        assert torch.equal(model.state_dict()[name], theirs[name])
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(model.state_dict()[f"qformer.{words}"], theirs[words])


def test_what_is_read_is_what_the_processor_makes_of_a_prompt(
    model: InstructBlipForConditionalGeneration, processor: InstructBlipProcessor
) -> None:
    maker = InstructionMaker(processor)
    question = "Question: is there a dog? Short answer:"
    rows = maker.rows([Text("", "two cats"), Text(question, " no")])
    embeds = torch.randn(2, 65, 128, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        shown = show(model.eval(), embeds, rows, maker.start)
        for number, text in enumerate((DESCRIBE, question)):
            made = processor(text=text, return_tensors="pt")
            length = made.input_ids.shape[1]
            assert torch.equal(rows.prompts[number, :length], made.input_ids[0])
            states = model.qformer(
                made.qformer_input_ids,
                query_embeds=model.query_tokens,
                encoder_hidden_states=embeds[number : number + 1],
            ).last_hidden_state
            torch.testing.assert_close(shown[number], states[0, :QUERIES], rtol=1e-4, atol=1e-4)


@pytest.mark.external
def test_the_loss_falls_and_a_stopped_training_goes_on_as_if_it_had_not(
    writer: Blip2ForConditionalGeneration,
    matcher: Blip2ForImageTextRetrieval,
    lessons: list[Lesson],
    tmp_path: Path,
) -> None:
    def begin() -> Learner[InstructBlipForConditionalGeneration]:
        return Learner(build_model(writer, matcher), PACE, tmp_path)

    words = sum(each.rows.target_count for each in lessons)
    losses = [loss_of(each, each.rows.target_count / words, 1.0, start=0) for each in lessons]
    unbroken = begin()
    first = unbroken.step(*losses)
    unbroken.step(*losses)
    unbroken.seconds = 30.0
    unbroken.save()
    resumed = begin()
    assert resumed.restore()
    last = unbroken.step(*losses)
    assert last == resumed.step(*losses)
    assert last < 0.9 * first
    for name, weight in unbroken.trained.items():
        assert torch.equal(weight, resumed.trained[name]), name


def test_an_exported_model_names_the_files_of_its_siblings(
    model: InstructBlipForConditionalGeneration,
    processor: InstructBlipProcessor,
    tmp_path: Path,
) -> None:
    beside = [tmp_path / name for name in ("tiny", "tiny-t5")]
    for folder in beside:
        folder.symlink_to(WEIGHTS / folder.name, target_is_directory=True)
    out = tmp_path / "new"
    export(model, processor, out, beside)
    index = json.loads((out / INDEX).read_text())["weight_map"]
    assert set(index.values()) == {
        "../tiny/vision.safetensors",
        "qformer.safetensors",
        "../tiny-t5/language.safetensors",
    }
    assert [path.name for path in out.glob("*.safetensors")] == ["qformer.safetensors"]
    loaded = InstructBlipForConditionalGeneration.from_pretrained(out)
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
    reloaded = AutoProcessor.from_pretrained(out)
    assert reloaded(text=DESCRIBE).qformer_input_ids == processor(text=DESCRIBE).qformer_input_ids
