"""Arguments of the Python API, checked and brought into one form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from blip2cli.errors import OptionError, either, option
from blip2cli.options import DecodeOptions

Errors = Literal["raise", "inline"]  # of images that cannot be used


def listed(texts: str | Iterable[str]) -> list[str]:
    """One text or several as a list."""
    return [texts] if isinstance(texts, str) else list(texts)


def decode_options(options: dict[str, Any]) -> DecodeOptions:
    """Decoding options by name. Raises OptionError for a name or a value that is none."""
    known = DecodeOptions.__dataclass_fields__
    for name in options:
        if name not in known:
            raise OptionError(
                name, f"{name} is no decoding option", f"there are {', '.join(known)}"
            )
    return DecodeOptions(**options)


def is_inline(errors: Errors) -> bool:
    """Whether images that cannot be used are rows. Raises OptionError for another value."""
    if errors not in get_args(Errors):
        raise OptionError(
            "errors",
            f"{option('errors')} has no value {errors!r}",
            f"choose {either(get_args(Errors))}",
        )
    return errors == "inline"


def image_column_of(batch: Mapping[str, Any], name: str) -> list[Any]:
    """The images of a batch of ``datasets``. Raises OptionError for no batch or no such column."""
    if name not in batch:
        raise OptionError(
            "image_column",
            f"{option('image_column')} {name}: there is no such column",
            f"there are {', '.join(batch)}",
        )
    images = batch[name]
    if isinstance(images, str | Mapping) or not isinstance(images, Iterable):
        raise OptionError(
            "batch",
            f"{option('image_column')} {name}: that is one image, and a batch has a list of them",
            "give map batched=True",
        )
    return list(images)
