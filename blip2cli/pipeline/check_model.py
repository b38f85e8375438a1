"""Check that models, known but not loaded, can do a task, and are those it was calibrated for."""

from __future__ import annotations

import contextlib
from typing import Any

from blip2cli.model.checkpoint.identity import weights_identity
from blip2cli.model.checkpoint.ranker import RankerSpec
from blip2cli.model.checkpoint.weight_files import Checkpoint
from blip2cli.sinks import both_weights


def check_model(task: Any, name: str, checkpoint: Checkpoint, ranker: RankerSpec | None) -> None:
    """Raise ``OptionError`` when the model cannot do the task, or another one was calibrated.

    Captions that ``ranker`` picks are others than those of the model by itself.
    """
    task.check(name, checkpoint.family)
    calibration = getattr(task, "calibration", None)
    if calibration is not None:
        with contextlib.suppress(OSError):  # loading the model says what is wrong
            weights: str | None = weights_identity(checkpoint)
            if weights is not None and ranker is not None:
                name, weights = (
                    f"{name} with {ranker.name}",
                    both_weights(weights, ranker.identity()),
                )
            calibration.check_weights(name, weights)
