"""Check that models, known but not loaded, can do a task, and are those it was calibrated for."""

from __future__ import annotations

from typing import Any

from blip2cli.model.checkpoint.ranker import RankerSpec
from blip2cli.model.checkpoint.weight_files import Checkpoint
from blip2cli.options import ModelOptions


def check_model(
    task: Any, model: ModelOptions, checkpoint: Checkpoint, ranker: RankerSpec | None
) -> None:
    """Raise ``OptionError`` when the model cannot do the task, or another one was calibrated."""
    task.check(model.model, checkpoint.family)
    calibration = getattr(task, "calibration", None)
    if calibration is not None:
        calibration.check_weights(model, checkpoint, ranker)
