"""How tiny-t5 is built and trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoProcessor,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    PreTrainedTokenizerFast,
)

from blip2cli.tiny.scenes import Placed, Scene
from tests.tiny.helpers import WEIGHTS, load_tiny, small_gallery
from training.build import QUERIES, load_processor
from training.export import INDEX, export
from training.gallery import Gallery
from training.labels import UNKNOWN
from training.learner import Learner, Pace
from training.t5 import Lessons, Student, build_config, build_model, build_tokenizer, loss_of
from training.t5_texts import PlaceFinder, RowMaker, read
from training.texts import T5_FORMS, Text

PACE = Pace(minutes=10, warm_up=1)


@pytest.fixture(scope="module")
def tiny() -> Blip2ForConditionalGeneration:
    return load_tiny()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(load_processor(WEIGHTS / "tiny").tokenizer)


@pytest.fixture(scope="module")
def processor(tokenizer: PreTrainedTokenizerFast) -> Blip2Processor:
    images = load_processor(WEIGHTS / "tiny").image_processor
    return Blip2Processor(images, tokenizer, num_query_tokens=QUERIES)


@pytest.fixture
def student(tiny: Blip2ForConditionalGeneration, processor: Blip2Processor) -> Student:
    return build_model(build_config(tiny.config, processor), tiny)


@pytest.fixture(scope="module")
def gallery(tiny: Blip2ForConditionalGeneration) -> Gallery:
    return small_gallery(tiny, 40, 4)


def test_a_prompt_ends_with_the_end_token_and_begins_with_none(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = tokenizer("a photo of").input_ids
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]) == "a photo of"
    assert tokenizer.get_vocab() == load_processor(WEIGHTS / "tiny").tokenizer.get_vocab()


def test_the_eyes_are_those_of_tiny_and_do_not_learn(
    student: Student, tiny: Blip2ForConditionalGeneration
) -> None:
    theirs = tiny.state_dict()
    for name, weight in student.state_dict().items():
        if name.startswith(("vision_model", "qformer", "query_tokens")):
            assert torch.equal(weight, theirs[name]), name
    learning = {name for name, p in student.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in learning} == {
        "language_model",
        "language_projection",
        "helper_head",
    }
    assert student.config.text_config.dense_act_fn == "gelu_new"  # Flan-T5's
    assert student.config.text_config.is_gated_act


def test_rows_say_what_is_read_and_what_is_written(tokenizer: PreTrainedTokenizerFast) -> None:
    maker = RowMaker(tokenizer)
    rows = maker.rows([Text("", "two cats"), Text("a photo of", " a pizza on a red background")])
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    assert rows.prompts[0].tolist() == [end, pad, pad, pad]
    assert rows.prompt_mask.tolist() == [[1, 0, 0, 0], [1, 1, 1, 1]]
    written = rows.targets[0][rows.targets[0] != UNKNOWN].tolist()
    assert tokenizer.decode(written, skip_special_tokens=True) == " two cats"
    assert written[-1] == end
    # The decoder starts from padding, as T5's does, and reads what was to be written before.
    assert rows.written[:, 0].tolist() == [pad, pad]
    assert torch.equal(rows.written[1, 1:], rows.targets[1, :-1])


def test_padding_changes_no_score(
    student: Student, tokenizer: PreTrainedTokenizerFast, gallery: Gallery
) -> None:
    maker, seen = RowMaker(tokenizer), gallery.query_output[:2]
    texts = [Text("", "two cats"), Text("Question: is there a dog? Short answer:", " no")]
    with torch.inference_mode():
        together = read(student, seen, maker.rows(texts)).logits
        for i, text in enumerate(texts):
            by_itself = read(student, seen[i : i + 1], maker.rows([text])).logits
            torch.testing.assert_close(together[i, : by_itself.shape[1]], by_itself[0])


def test_named_objects_are_found_where_they_stand(tokenizer: PreTrainedTokenizerFast) -> None:
    maker = RowMaker(tokenizer)
    finder = PlaceFinder(maker)
    placed = [Placed(kind, x, 0.5, 0.2, 0.2) for kind, x in (("cat", 0.2), ("dog", 0.75))]
    twice = [Placed("cup", x, 0.2, 0.1, 0.1) for x in (0.4, 0.6)]
    scene = Scene((*placed, *twice), "blue")
    questions = [
        "is the cat left or right of the dog?",
        "on which side of the cat is the dog?",
        "how many cups are there?",  # two: neither is meant
        "is there a cat?",
    ]
    prompts = [T5_FORMS[0].format(question) for question in questions]
    places = finder.places(prompts, [scene, scene, scene, scene])
    named = [
        (row, tokenizer.decode(maker.encode(prompts[row])[at])) for row, at in places.words.tolist()
    ]
    assert named == [(0, " cat"), (0, " dog"), (1, " cat"), (1, " dog"), (3, " cat")]
    assert places.across.tolist() == pytest.approx([0.2, 0.75, 0.2, 0.75, 0.2])
    assert places.pairs[:, 0].tolist() == [0, 1]
    # The one that is asked about is left of the other, then right of it.
    assert places.lead.tolist() == pytest.approx([-0.55, 0.55])
    assert not len(finder.places(prompts[:1], [None]).words)


def test_lessons_are_about_what_is_in_the_pictures(
    tokenizer: PreTrainedTokenizerFast, gallery: Gallery
) -> None:
    lessons = Lessons(gallery, RowMaker(tokenizer), seed=0)
    drawn = lessons.draw(scenes=4, sparse=4, shapes=2, each=5)
    assert sum(len(each.rows.prompts) for each in drawn) > 30
    for lesson in drawn:
        assert len(lesson.query_output) == len(lesson.rows.prompts)
        assert lesson.rows.target_count == int((lesson.rows.targets != UNKNOWN).sum())
    long, short = drawn
    assert (short.rows.targets != UNKNOWN).sum(1).max() <= 3
    assert (long.rows.targets != UNKNOWN).sum(1).min() > 3
    assert len(short.places.words)


def test_every_loss_falls_and_a_stopped_training_goes_on_as_if_it_had_not(
    tiny: Blip2ForConditionalGeneration,
    processor: Blip2Processor,
    gallery: Gallery,
    tmp_path: Path,
) -> None:
    def begin() -> Learner[Student]:
        return Learner(build_model(build_config(tiny.config, processor), tiny), PACE, tmp_path)

    lessons = Lessons(gallery, RowMaker(processor.tokenizer), seed=0).draw(4, 4, 2, 4)
    words = sum(each.rows.target_count for each in lessons)
    losses = [loss_of(each, each.rows.target_count / words) for each in lessons]
    unbroken = begin()
    assert not unbroken.restore()
    first = unbroken.step(*losses)
    for _ in range(3):
        unbroken.step(*losses)
    unbroken.seconds = 30.0
    unbroken.save()
    resumed = begin()
    assert resumed.restore()
    assert (resumed.steps, resumed.seconds) == (4, 30.0)
    last = unbroken.step(*losses)
    assert last == resumed.step(*losses)
    assert last < 0.9 * first
    for name, weight in unbroken.trained.items():
        assert torch.equal(weight, resumed.trained[name]), name
    for name, weight in unbroken.model.named_parameters():
        if name.startswith(("vision_model", "qformer", "query_tokens")):
            assert torch.equal(weight, tiny.state_dict()[name]), name
    resumed.forget()
    assert not begin().restore()


def test_gradients_from_bfloat16_point_where_those_from_float32_do(
    student: Student, tokenizer: PreTrainedTokenizerFast, gallery: Gallery, tmp_path: Path
) -> None:
    lessons = Lessons(gallery, RowMaker(tokenizer), seed=0).draw(4, 4, 2, 4)
    learner = Learner(student, PACE, tmp_path)
    if learner.twin is None:
        pytest.skip("the CPU has no bfloat16 instructions, and training uses none")
    gradients = []
    for model in (learner.model, learner.twin):
        for each in lessons:
            loss_of(each, 0.5)(model).backward()
        found = [p.grad.float().flatten() for p in model.parameters() if p.grad is not None]
        gradients.append(torch.cat(found))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.97


def test_an_exported_model_names_the_files_of_tiny(
    student: Student, processor: Blip2Processor, tmp_path: Path
) -> None:
    beside = tmp_path / "tiny"
    beside.symlink_to(WEIGHTS / "tiny", target_is_directory=True)
    out = tmp_path / "new"
    export(student, processor, out, (beside,))
    index = json.loads((out / INDEX).read_text())["weight_map"]
    assert set(index.values()) == {
        "../tiny/vision.safetensors",
        "../tiny/qformer.safetensors",
        "language.safetensors",
    }
    assert sorted(path.name for path in out.glob("*.safetensors")) == ["language.safetensors"]
    weights = student.state_dict()
    loaded = Blip2ForConditionalGeneration.from_pretrained(out)
    assert loaded.dtype == torch.float32
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    config = loaded.config.text_config
    assert config.scale_decoder_outputs == student.config.text_config.scale_decoder_outputs
    text = "Question: how many cats are there? Short answer:"
    reloaded = AutoProcessor.from_pretrained(out)
    assert reloaded.tokenizer(text).input_ids == processor.tokenizer(text).input_ids


def test_a_part_that_differs_is_written(
    student: Student, processor: Blip2Processor, tmp_path: Path
) -> None:
    beside = tmp_path / "tiny"
    beside.symlink_to(WEIGHTS / "tiny", target_is_directory=True)
    with torch.no_grad():
        student.qformer.layernorm.weight[0] += 1
    export(student, processor, tmp_path / "new", (beside,))
    index = json.loads((tmp_path / "new" / INDEX).read_text())["weight_map"]
    assert index["qformer.layernorm.weight"] == "qformer.safetensors"
    assert index["vision_model.post_layernorm.weight"] == "../tiny/vision.safetensors"
