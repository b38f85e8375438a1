"""The model, imported with torch only when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blip2cli.model.wrapper import Blip2


def import_model() -> type[Blip2]:
    """Import torch and what runs the model, fit for the cores there are."""
    from blip2cli.system.openmp import after_torch, before_torch

    before_torch()
    from blip2cli.model.wrapper import Blip2

    after_torch()
    return Blip2
