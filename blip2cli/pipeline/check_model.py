"""Check that a model, known but not loaded, can do a task, and is the one it was calibrated for."""

from __future__ import annotations

import contextlib
from typing import Any

from blip2cli.model.checkpoint.identity import weights_identity
from blip2cli.model.checkpoint.weight_files import Checkpoint


def check_model(task: Any, name: str, checkpoint: Checkpoint) -> None:
    """Raise ``OptionError`` when the model cannot do the task, or another one was calibrated."""
    task.check(name, checkpoint.family)
    calibration = getattr(task, "calibration", None)
    if calibration is not None:
        with contextlib.suppress(OSError):  # loading the model says what is wrong
            calibration.check_weights(name, weights_identity(checkpoint))
