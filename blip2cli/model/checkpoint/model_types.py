"""The kinds of models that are run, by ``model_type`` in ``config.json``.

They have the same vision encoder and the same language models; what differs is what the Q-Former
reads beside the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from blip2cli.model.families.base import Family


@dataclass(frozen=True)
class ModelType:
    """One kind of model, and where transformers has it."""

    name: str  # model_type in config.json
    label: str  # in messages
    package: str  # in transformers.models
    prefix: str  # of its classes there
    # Whether the Q-Former of a model that writes reads the prompt beside the image.
    instructed: bool = False

    def architecture(self, family: Family) -> str:
        """The class of transformers that holds the whole model."""
        return family.architecture.replace(BLIP_2.prefix, self.prefix)

    def model_class(self, family: Family) -> Any:
        """That class itself. Imports transformers."""
        return getattr(self._module("modeling"), self.architecture(family))

    def config_class(self) -> Any:
        """The class of its configuration. Imports transformers."""
        return getattr(self._module("configuration"), f"{self.prefix}Config")

    def processor_class(self) -> Any:
        """The class of its processor. Imports transformers."""
        return getattr(self._module("processing"), f"{self.prefix}Processor")

    def _module(self, name: str) -> Any:
        return import_module(f"transformers.models.{self.package}.{name}_{self.package}")


BLIP_2 = ModelType("blip-2", "BLIP-2", "blip_2", "Blip2")
# arXiv 2305.06500.
INSTRUCT_BLIP = ModelType("instructblip", "InstructBLIP", "instructblip", "InstructBlip", True)
MODEL_TYPES = {each.name: each for each in (BLIP_2, INSTRUCT_BLIP)}
