"""How an option is declared: once, as a field of a frozen dataclass, with everything about it.

The command line, the environment variables, the Python API, the settings that ``resume`` compares
and the reference page are made from these declarations. To add an option, add a field here and
read it where it acts.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from blip2cli.errors import OptionError, either, option

# The headings under which the help lists options, in order.
PANELS = (
    SETTINGS := "Settings",
    SOURCE := "Source",
    QUESTIONS := "Questions",
    VECTORS := "Vectors",
    OUTPUT := "Output",
    FORMAT := "Format",
    TEXTS := "Texts",
    IMAGES := "Images",
    IDS := "COCO and VQA",
    METRICS := "Metrics",
    CHECKPOINTS := "Checkpoints",
    MODEL := "Model",
    DECODING := "Decoding",
    RANKING := "Ranking",
    CONFIDENCE := "Confidence",
    CLUSTER := "Cluster",
    REPORTING := "Reporting",
)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What is known of an option beside its name, type and default."""

    help: str
    panel: str  # the heading in the help
    shapes_rows: bool  # belongs to the settings that ``resume`` compares
    about_images: bool  # means nothing where no image is read
    flag: str | None = None  # the long flag, where it is not the field's name with hyphens
    short: str | None = None  # a short flag, such as "-o"
    switch_off: str | None = None  # the flag that turns a boolean off
    metavar: str | None = None  # what the help calls the value
    default_help: str | None = None  # what the help says of the default, where None stands for it
    # Whether the help on one screen lists it; a text: in these words, where ``help`` is long
    brief: bool | str = False
    minimum: float | None = None  # the smallest value
    parse: Callable[[str], Any] | None = None  # from the text on the command line
    counted: bool = False  # how often the flag is given
    positional: bool = False  # an argument, not a flag
    presets: Mapping[str, Mapping[str, Any]] | None = None  # what each value sets other options to
    # What a shell offers as values: these, or what ``cli.flags.offers`` finds by this name
    offers: tuple[str, ...] | str = ()
    columns_of: tuple[str, ...] = ()  # options that name tables, whose columns are values of it

    def long_flag(self, name: str) -> str:
        """``--max-new-tokens`` of ``max_new_tokens``."""
        return self.flag or "--" + name.replace("_", "-")


def declare(
    default: Any,
    help: str,  # noqa: A002 - as Typer calls it
    *,
    shapes_rows: bool,
    about_images: bool,
    **more: Any,
) -> Any:
    """A field of an option group; ``more`` as in :class:`Declared`.

    ``shapes_rows`` and ``about_images`` have no default on purpose: an option that shapes rows and
    is not compared lets ``resume`` mix rows of two kinds.
    """
    declared = Declared(help=help, shapes_rows=shapes_rows, about_images=about_images, **more)
    return field(default=default, metadata={Declared: declared})


# An option of a command that writes no rows of its own.
setting = functools.partial(declare, shapes_rows=False, about_images=False)


class OptionGroup:
    """Base of the frozen dataclasses that declare options. Values are checked when one is made."""

    def __init_subclass__(cls) -> None:
        """Raises ``TypeError`` for a field that is not declared with :func:`declare`."""
        for name in inspect.get_annotations(cls):
            if Declared not in getattr(cls.__dict__.get(name), "metadata", {}):
                raise TypeError(f"{cls.__name__}.{name} has no declaration; use declare(...).")

    def __post_init__(self) -> None:
        """Raise ``OptionError`` for a value that is too small or not one of those there are."""
        hints = _hints(type(self))  # type: ignore[arg-type] # a class can be hashed
        for name, declared in declarations(type(self)):
            value = getattr(self, name)
            if value is None:
                continue
            choices = choices_of(hints[name])
            if choices and value not in choices:
                raise OptionError(
                    name, f"{option(name)} has no value {value!r}", f"choose {either(choices)}"
                )
            if declared.minimum is not None and value < declared.minimum:
                raise OptionError(
                    name, f"{option(name)} must be at least {declared.minimum:g}, not {value}"
                )

    def _refuse_both(self, first: str, second: str, what: str) -> None:
        """Raise ``OptionError`` when both of two options are given."""
        if getattr(self, first) and getattr(self, second) is not None:
            raise OptionError(
                second,
                f"{option(first)} and {option(second)} exclude each other",
                f"put all {what} in one",
            )

    @property
    def settings(self) -> dict[str, object]:
        """The options that shape rows, by name, as plain JSON values."""
        return {
            name: list(value) if isinstance(value := getattr(self, name), tuple) else value
            for name, declared in declarations(type(self))
            if declared.shapes_rows
        }

    @property
    def given_about_images(self) -> Iterator[str]:
        """The names of options about images that have another value than their default."""
        for each in fields(self):  # type: ignore[arg-type] # a dataclass
            if each.metadata[Declared].about_images and getattr(self, each.name) != each.default:
                yield each.name


def declarations(group: type[OptionGroup]) -> list[tuple[str, Declared]]:
    """Names and declarations of a group's options, in order."""
    listed = fields(group)  # type: ignore[arg-type] # its subclasses are dataclasses
    return [(each.name, each.metadata[Declared]) for each in listed]


def choices_of(hint: Any) -> tuple[Any, ...]:
    """The values of a ``Literal``, optional or not; empty for any other type."""
    for each in (hint, *get_args(hint)):
        if get_origin(each) is Literal:
            return get_args(each)
    return ()


@functools.cache
def _hints(group: type[OptionGroup]) -> dict[str, Any]:
    return get_type_hints(group)
