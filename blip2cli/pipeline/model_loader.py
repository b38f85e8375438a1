"""From the name of a model to the model: found without torch, loaded with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from blip2cli.options import ModelOptions

if TYPE_CHECKING:
    from blip2cli.images.preprocess import PixelSpec
    from blip2cli.model.wrapper import Blip2


class Checks(Protocol):
    """A task of images or of texts."""

    def check(self, model: ModelOptions) -> None:
        """Raise ``OptionError`` when ``model`` cannot do this."""


ModelLoader = Callable[[ModelOptions], "Blip2"]


def load_model(options: ModelOptions, task: Checks | None = None) -> Blip2:
    """Import torch, then read the weights.

    Raises ``OptionError`` before that when the model, once found, cannot do ``task``.
    """
    find_model(options, task)  # a wrong name is answered before torch is imported
    return import_model().load(options)


def import_model() -> type[Blip2]:
    """Import torch and what runs the model, fit for the cores there are."""
    from blip2cli.system.openmp import after_torch, before_torch

    before_torch()
    from blip2cli.model.wrapper import Blip2

    after_torch()
    return Blip2


def find_model(options: ModelOptions, task: Checks | None = None) -> PixelSpec:
    """Find the model, and how it wants its images, without torch; fetches it from the hub.

    Raises ``ModelError`` when it cannot be found or its files contradict one another, and
    ``OptionError`` when it cannot do ``task``.
    """
    from blip2cli.model.checkpoint.directory import check_image_size
    from blip2cli.model.checkpoint.resolve import resolve

    checkpoint = resolve(options.model, options.revision)
    if task is not None:
        task.check(options)
    from blip2cli.images.preprocess import PixelSpec  # numpy and Pillow, not for a mistake

    spec = PixelSpec.from_processor_config(checkpoint.image_processor())
    check_image_size(checkpoint, spec.height, spec.width)
    return spec
