"""A section of ``config.json`` as a frozen dataclass.

Names and defaults of its fields are those of transformers' configuration classes: published files
say only what differs from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from blip2cli.errors import ModelError

_REMEDY = "take config.json from the model that the weights are from"

# Values of the types that fields may have whose default is None.
_EXAMPLES: dict[str, object] = {"int | None": 1, "bool | None": True, "str | None": "gelu"}

Section = TypeVar("Section", bound="ConfigSection")


@dataclass(frozen=True)
class ConfigSection:
    """A section of ``config.json``; keys that are no field do not matter to running the model."""

    @classmethod
    def read(cls: type[Section], values: Mapping[str, Any], **overrides: Any) -> Section:
        """From a JSON object; ``overrides`` win. Raises ModelError for a value of another type."""
        known = {field.name: field for field in fields(cls)}
        found = {name: value for name, value in values.items() if name in known} | overrides
        for name, value in list(found.items()):
            default = known[name].default
            if name.endswith("_token_id"):
                check_id(name, value)
            elif value is None:
                del found[name]  # what is not said has its default
            else:
                _check_value(name, value, _EXAMPLES.get(str(known[name].type), default))
        return cls(**found)


def _check_value(name: str, value: object, default: object) -> None:
    kind = type(default)
    if default is MISSING or default is None:
        fits = True
    elif kind is int:
        fits = type(value) is int and value > 0
    else:
        fits = isinstance(value, kind) or (kind is float and type(value) is int)
    if not fits:
        raise ModelError(
            None,
            f"config.json says {name}: {value!r}, where a value like {default!r} belongs",
            _REMEDY,
        )


def check_id(name: str, value: object) -> None:
    """Raise ModelError unless ``value`` is None or the id of a token; only texts may end with one
    of several."""
    several = name == "eos_token_id"
    ids = value if several and isinstance(value, list) else [value]
    if value is not None and not all(type(each) is int for each in ids):
        belongs = "the id of a token, or a list of them," if several else "the id of a token"
        raise ModelError(
            None, f"config.json says {name}: {value!r}, where {belongs} belongs", _REMEDY
        )
