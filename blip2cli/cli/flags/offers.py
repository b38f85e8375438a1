"""What a shell offers as values of an option: of a fixed set, or found quickly on this machine.

Nothing here imports a large library, and nothing is printed, whatever a file holds: it would stand
in the middle of the line that is typed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from blip2cli.cli.flags.completed_line import is_bare_in_bash
from blip2cli.options.declare import Declared

_TABLES = 4  # files that columns are looked up in
_ENTRIES = 1000  # of a folder


def offered(declared: Declared, context: Any, incomplete: str) -> list[str]:
    """The values of an option; ``context`` is Typer's, with what stands before on the line."""
    if isinstance(declared.offers, tuple) and declared.offers:
        return [*declared.offers]
    kind = declared.offers if isinstance(declared.offers, str) else "columns"
    found: dict[str, None] = {}
    with contextlib.suppress(Exception):
        for value in KINDS[kind](declared, context, incomplete):
            found[value] = None
    return [_as_inserted(value) for value in found]


def _models(declared: Declared, context: Any, incomplete: str) -> Iterator[str]:
    """Models that are run: embedded, in the cache of the hub, in directories."""
    from blip2cli.model.checkpoint.cached_models import cached_models
    from blip2cli.model.checkpoint.embedded import EMBEDDED

    yield from EMBEDDED
    with contextlib.suppress(OSError):  # of a hub id the owner is no folder
        yield from _directories(incomplete)
    yield from cached_models()


def _checkpoints(declared: Declared, context: Any, incomplete: str) -> Iterator[str]:
    """Whatever is in the cache of the hub; a shell completes directories itself."""
    from blip2cli.model.checkpoint.cached_models import cached_models

    return cached_models(every=True)


def _directories(incomplete: str) -> Iterator[str]:
    """Directories of models that begin so, and others beside them, which may hold some.

    None without a model among them: a shell completes paths itself, without a blank behind.
    """
    from blip2cli.model.checkpoint.cached_models import holds_model

    folder, slash, _ = incomplete.rpartition("/")
    above = folder + slash
    with os.scandir(os.path.expanduser(above) or ".") as entries:
        names = [e.name for e in islice(entries, _ENTRIES) if e.is_dir() and e.name[0] != "."]
    paths = [above + name for name in sorted(names) if (above + name).startswith(incomplete)]
    models = [path for path in paths if holds_model(os.path.expanduser(path))]
    yield from models
    if slash and models:
        yield from (f"{path}/" for path in paths if path not in models)


def _columns(declared: Declared, context: Any, incomplete: str) -> Iterator[str]:
    """Columns of the tables that stand before on the line."""
    from blip2cli.sources.quick_columns import quick_columns

    for path in islice(_tables(declared, context), _TABLES):
        with contextlib.suppress(Exception):  # the next one may be readable
            yield from quick_columns(os.path.expanduser(path))


def _tables(declared: Declared, context: Any) -> Iterator[str]:
    arguments = {each.name for each in context.command.params if each.param_type_name == "argument"}
    for name in declared.columns_of:
        given = context.params.get(name) or ()
        yield from (given,) if isinstance(given, str) else given
        if name in arguments:
            # Typer's parser gives up at an option without a value, before it names these.
            yield from context.args


def _texts(declared: Declared, context: Any, incomplete: str) -> Iterator[str]:
    """Texts that name a column in braces, which are open at the end of ``incomplete``."""
    before, brace, name = incomplete.rpartition("{")
    if brace and "}" not in name:
        for column in _columns(declared, context, incomplete):
            yield f"{before}{{{column}}}"


def _jobs(declared: Declared, context: Any, incomplete: str) -> Iterator[str]:
    """Jobs of this command in the file of options that stands before on the line."""
    from blip2cli.cli.flags.settings_table import jobs_of

    return jobs_of(context.params["config"], context.command.name)


def _read_formats(declared: Declared, context: Any, incomplete: str) -> Iterator[str]:
    from blip2cli.convert.format_table import READABLE

    return iter(READABLE)


def _written_formats(declared: Declared, context: Any, incomplete: str) -> Iterator[str]:
    from blip2cli.convert.format_table import FORMATS

    return iter(FORMATS)


KINDS: dict[str, Callable[[Declared, Any, str], Iterator[str]]] = {
    "checkpoints": _checkpoints,
    "columns": _columns,
    "jobs": _jobs,
    "models": _models,
    "read formats": _read_formats,
    "texts": _texts,
    "written formats": _written_formats,
}


def _as_inserted(value: str) -> str:
    """``value`` as it is put into the line: bash adds no quotes, other shells do."""
    return re.sub(r"([\s'\"\\$&;|<>()*?!`#])", r"\\\1", value) if is_bare_in_bash() else value
