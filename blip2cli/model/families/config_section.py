"""A section of ``config.json`` as a frozen dataclass.

Names and defaults of its fields are those of transformers' configuration classes: published files
say only what differs from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from blip2cli.errors import ModelError

Section = TypeVar("Section", bound="ConfigSection")


@dataclass(frozen=True)
class ConfigSection:
    """A section of ``config.json``; keys that are no field do not matter to running the model."""

    @classmethod
    def read(cls: type[Section], values: Mapping[str, Any], **overrides: Any) -> Section:
        """From a JSON object; ``overrides`` win. Raises ModelError for a value of another type."""
        known = {field.name: field for field in fields(cls)}
        found = {name: value for name, value in values.items() if name in known} | overrides
        for name, value in found.items():
            default = known[name].default
            kind = type(default)
            if default is MISSING or default is None or value is None or isinstance(value, kind):
                continue
            if kind is float and type(value) is int:
                continue
            raise ModelError(
                None,
                f"config.json says {name}: {value!r}, where a value like {default!r} belongs",
                "take config.json from the model that the weights are from",
            )
        return cls(**found)
