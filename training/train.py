"""Train an embedded model from nothing: ``python -m training.train``.

Training is measured in minutes of work. It can be stopped at any time: run the same command
again and it goes on from its last checkpoint. When the minutes are used up, the finished
model is written with its measured scores.

First the vision encoder and the Q-Former learn alone, from the helper heads; then the text loss
joins; at last the language model learns alone (see ``reading``). Optimisers, learning rates and
precision are ``learner``'s.
"""

from __future__ import annotations

import argparse
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from blip2cli.model.checkpoint.embedded import embedded_root
from training.card import model_card
from training.data import Batch, Packer, Pool, sample_shapes, scene_chunks
from training.easyvqa import load_split
from training.evaluate import Scores, evaluate, held_out_scenes
from training.export import export
from training.reading import learn_to_read
from training.trainer import Recipe, Trainer


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
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(recipe, folder, start_from)
    resumed = trainer.restore()
    print(f"{'going on' if resumed else 'starting'} at step {trainer.steps}", flush=True)
    packer = Packer(trainer.processor.tokenizer)
    scenes, test = held_out_scenes(400), load_split("test")
    means: dict[str, float] = {}
    saved = scored = trainer.seconds
    began = time.monotonic()
    for batch in batches(recipe, packer, seed=1000 + trainer.steps):
        trainer.model.train()
        for name, loss in trainer.step(batch).items():
            means[name] = 0.98 * means.get(name, loss) + 0.02 * loss
        now = time.monotonic()
        trainer.seconds, began = trainer.seconds + now - began, now
        if trainer.steps % 100 == 0:
            told = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
            print(f"{trainer.seconds / 60:6.1f} min, step {trainer.steps}: {told}", flush=True)
        if trainer.seconds - saved > 120:
            trainer.save()
            saved = trainer.seconds
        if trainer.seconds - scored > 600 and "text" in means:
            scored = trainer.seconds
            print(evaluate(trainer.model, packer, scenes, test[:100]), flush=True)
        if trainer.share >= 1:
            break
    trainer.save()
    learn_to_read(trainer, packer, recipe.reading_minutes)
    finish(trainer, out)
    # The next call shall begin anew.
    trainer.checkpoint.unlink()
    shutil.rmtree(folder / "processor")


def finish(trainer: Trainer, out: Path) -> Scores:
    """Write the model to ``out``, measure what was written, and say so in its model card."""
    export(trainer.model, trainer.processor, out)
    packer = Packer(trainer.processor.tokenizer)
    scores = evaluate(trainer.model, packer, held_out_scenes(3000), load_split("test"))
    card = model_card(trainer.model, scores)
    (out / "README.md").write_text(card, encoding="utf-8")
    print(scores, flush=True)
    return scores


def main() -> None:
    """Read the command line and train."""
    defaults = Recipe()
    parser = argparse.ArgumentParser(description="Train the embedded model from nothing.")
    parser.add_argument("--minutes", type=float, default=defaults.minutes, help="minutes of work")
    parser.add_argument(
        "--reading-minutes",
        type=float,
        default=defaults.reading_minutes,
        help="minutes after those in which the language model learns alone",
    )
    parser.add_argument("--folder", type=Path, default=Path("build/tiny"), help="for checkpoints")
    parser.add_argument("--out", type=Path, default=embedded_root() / "tiny")
    parser.add_argument("--start-from", type=Path, help="an exported model to improve on")
    options = parser.parse_args()
    recipe = Recipe(minutes=options.minutes, reading_minutes=options.reading_minutes)
    if options.start_from:
        recipe = replace(recipe, seeing_only=0.0)  # it can read already
    train(recipe, options.folder, options.out, options.start_from)


if __name__ == "__main__":
    main()
