from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, Blip2ForConditionalGeneration, Blip2Processor

from training.data import Batch, Packer, draw_example, sample_shapes
from training.easyvqa import load_split
from training.evaluate import Scores, held_out_scenes
from training.export import export
from training.learner import bfloat16_twin, rate_factor
from training.trainer import Recipe, Trainer, helper_factor

RECIPE = Recipe(minutes=10, seeing_only=0.0)


@pytest.fixture(scope="module")
def batch(processor: Blip2Processor) -> Batch:
    rng = np.random.default_rng(0)
    scenes = [draw_example(rng) for _ in range(6)]
    shapes = sample_shapes(random.Random(0), load_split("test")[:10], 2)
    return Packer(processor.tokenizer).batch(scenes, shapes, random.Random(0))


@pytest.fixture
def folder(processor: Blip2Processor, tmp_path: Path) -> Path:
    """A folder of a training that has its processor: making one takes seconds."""
    processor.save_pretrained(tmp_path / "processor")
    return tmp_path


def test_a_stopped_training_goes_on_as_if_it_had_not(folder: Path, batch: Batch) -> None:
    unbroken = Trainer(RECIPE, folder)
    for _ in range(2):
        unbroken.step(batch)
    unbroken.learner.seconds = 90.0
    unbroken.learner.save()
    resumed = Trainer(RECIPE, folder)
    assert resumed.learner.restore()
    assert (resumed.learner.steps, resumed.learner.seconds) == (2, 90.0)
    assert unbroken.step(batch) == resumed.step(batch)
    weights = resumed.model.state_dict()
    for name, weight in unbroken.model.state_dict().items():
        assert torch.equal(weight, weights[name]), name


def test_nothing_to_restore(processor: Blip2Processor, tmp_path: Path) -> None:
    trainer = Trainer(RECIPE, tmp_path)
    assert not trainer.learner.restore()
    assert trainer.processor.tokenizer.get_vocab() == processor.tokenizer.get_vocab()


def test_every_loss_falls(folder: Path, batch: Batch) -> None:
    trainer = Trainer(RECIPE, folder)
    trainer.learner.steps = 200  # past the warm-up
    first = trainer.step(batch)
    for _ in range(8):
        last = trainer.step(batch)
    assert set(first) >= {
        "patch kind",
        "patch count",
        "patch group",
        "kind",
        "count",
        "background",
        "total",
        "row",
        "place",
        "text",
    }
    assert sum(last.values()) < 0.75 * sum(first.values())
    assert last["text"] < first["text"]


def test_the_rate_warms_up_holds_and_falls_to_zero() -> None:
    assert rate_factor(0.0, 0, 0.4) == pytest.approx(1 / 200)
    assert rate_factor(0.3, 1000, 0.4) == 1
    assert rate_factor(0.7, 1000, 0.4) == pytest.approx(0.5)
    assert rate_factor(1.0, 1000, 0.4) == 0


def test_the_helper_heads_fade() -> None:
    assert helper_factor(0.2, 0.4, 0.1) == 1
    assert helper_factor(0.7, 0.4, 0.1) == pytest.approx(0.55)
    assert helper_factor(1.0, 0.4, 0.1) == pytest.approx(0.1)


def test_gradients_from_bfloat16_point_where_those_from_float32_do(
    folder: Path, batch: Batch
) -> None:
    trainer = Trainer(RECIPE, folder)

    def gradient() -> torch.Tensor:
        losses = trainer.losses(trainer.learner.computing_model(), batch)
        torch.stack(list(losses.values())).sum().backward()
        trainer.learner.collect_gradients()
        weights = trainer.model.parameters()
        found = torch.cat([w.grad.flatten() for w in weights if w.grad is not None])
        trainer.model.zero_grad()
        return found

    trainer.learner.twin = None
    exact = gradient()
    trainer.learner.twin = bfloat16_twin(trainer.model)
    assert torch.cosine_similarity(exact, gradient(), dim=0) > 0.97


def test_held_out_scenes_have_one_to_four_objects() -> None:
    scenes = held_out_scenes(40)
    assert {len(scene.objects) for _, scene in scenes} == {1, 2, 3, 4}


def test_scores_read_well() -> None:
    assert str(Scores(0.955, 1.0, 0.9951, (3000, 6000, 9673))) == (
        "captions 95.50% of 3,000, questions 100.00% of 6,000, easy-VQA 99.51% of 9,673"
    )


def test_what_is_exported_is_what_was_measured(folder: Path, batch: Batch) -> None:
    trainer = Trainer(RECIPE, folder)
    trainer.step(batch)
    export(trainer.model, trainer.processor, folder / "out")
    loaded = Blip2ForConditionalGeneration.from_pretrained(folder / "out")
    assert loaded.dtype == torch.float32  # although half the bytes are stored
    assert sum(path.stat().st_size for path in (folder / "out").iterdir()) < 8e6
    weights = loaded.state_dict()
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    processor = AutoProcessor.from_pretrained(folder / "out")
    text = "Question: how many cats are there? Answer:"
    assert processor.tokenizer(text).input_ids == trainer.processor.tokenizer(text).input_ids


def test_training_can_start_from_an_exported_model(folder: Path, batch: Batch) -> None:
    first = Trainer(RECIPE, folder)
    first.step(batch)
    export(first.model, first.processor, folder / "out")
    second = Trainer(RECIPE, folder / "new", start_from=folder / "out")
    assert second.processor.tokenizer.get_vocab() == first.processor.tokenizer.get_vocab()
    weights = second.model.state_dict()
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, weights[name]), name
