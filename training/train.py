"""Train ``tiny`` from nothing: ``python -m training.train``.

Training is measured in minutes of work. It can be stopped at any time: run the same command
again and it goes on from its last checkpoint. When the minutes are used up, the finished
model is written with its measured scores.

First only the vision encoder and the Q-Former learn, from the helper heads; then the text loss
joins; at last only the language model learns (see ``reading``). Optimisers, learning rates and
precision are in ``learner``.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from transformers import Blip2ForConditionalGeneration

from training.card import model_card
from training.command_line import training_parser
from training.data import Batch, Packer, Pool, sample_shapes, scene_chunks
from training.easyvqa import load_split
from training.evaluate import evaluate, held_out_scenes
from training.export import publish
from training.reading import train_language_model
from training.trainer import Recipe, Trainer

READING_SCENES = 12_000  # pictures of the last stage


def batches(recipe: Recipe, packer: Packer, seed: int) -> Iterator[Batch]:
    """Training batches without end."""
    rng = random.Random(seed)
    shapes = load_split("train")
    pool = Pool(recipe.pool)
    chunks = scene_chunks(seed)
    while len(pool.scenes) < 64 * recipe.scenes // 4:
        pool.add(next(chunks))
    while True:
        for _ in range(recipe.fresh):
            pool.add(next(chunks))
        scenes = pool.sample(rng, recipe.scenes)
        yield packer.batch(scenes, sample_shapes(rng, shapes, recipe.shapes), rng)


def train(recipe: Recipe, folder: Path, out: Path, start_from: Path | None = None) -> None:
    """Train, report and export; ``start_from`` is a model to go on with, None: from nothing."""
    trainer = Trainer(recipe, folder, start_from)
    learner = trainer.learner
    resumed = learner.restore()
    print("going on" if resumed else "starting", flush=True)
    packer = Packer(trainer.processor.tokenizer)
    scenes, test = held_out_scenes(400), load_split("test")
    stream = batches(recipe, packer, seed=1000 + learner.steps)
    learner.run(
        lambda: trainer.step(next(stream)),
        lambda: str(evaluate(trainer.model, packer, scenes, test[:100])),
        report_minutes=10,
    )
    train_language_model(trainer, packer, recipe.reading_minutes, READING_SCENES)

    def describe(model: Blip2ForConditionalGeneration) -> tuple[str, str]:
        scores = evaluate(model, packer, held_out_scenes(3000), test)
        return model_card(model, scores), str(scores)

    publish(trainer.model, trainer.processor, out, describe)
    learner.forget()
    shutil.rmtree(folder / "processor")


def main() -> None:
    """Read the command line and train."""
    defaults = Recipe()
    parser = training_parser("tiny", defaults.minutes, "Train the embedded model from nothing.")
    parser.add_argument(
        "--reading-minutes",
        type=float,
        default=defaults.reading_minutes,
        help="minutes after those in which only the language model learns",
    )
    parser.add_argument("--start-from", type=Path, help="an exported model to improve on")
    options = parser.parse_args()
    recipe = Recipe(minutes=options.minutes, reading_minutes=options.reading_minutes)
    if options.start_from:
        recipe = replace(recipe, seeing_only=0.0)  # it can read already
    train(recipe, options.folder, options.out, options.start_from)


if __name__ == "__main__":
    main()
