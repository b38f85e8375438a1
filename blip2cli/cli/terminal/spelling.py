"""How texts are written for people: options as flags, no control characters, no secrets."""

from __future__ import annotations

import functools
import json
import os
from typing import Any

from blip2cli.errors import Blip2CliError, spell_options
from blip2cli.options import GROUPS, declarations
from blip2cli.storage.secrets import hide_secrets
from blip2cli.storage.text_encoding import printable

PREFIX = "BLIP2CLI_"


def flag(name: str) -> str:
    """``--num-beams`` for ``num_beams``; an argument is called as in the help: ``SOURCE``."""
    return _flags().get(name) or "--" + name.replace("_", "-")


def with_flags(text: str) -> str:
    """A text for people with the options in it spelled as flags."""
    return spell_options(text, flag)


def readable(text: str) -> str:
    """A text as it is printed, on one line: whatever names and messages of others may hold."""
    return hide_secrets(printable(with_flags(text)))


def as_json(value: Any) -> str:
    """A JSON value on one line for programs, its texts as in ``readable`` but for escapes."""
    return json.dumps(_spelled(value)).replace("\x7f", "\\u007f")


def _spelled(value: Any) -> Any:
    if isinstance(value, str):
        return hide_secrets(with_flags(value))
    if isinstance(value, (list, tuple)):
        return [_spelled(item) for item in value]
    if isinstance(value, dict):
        return {key: _spelled(item) for key, item in value.items()}
    return value


def sentence(error: Blip2CliError) -> str:
    """What is printed of an error; where a variable may be to blame, it is named as well."""

    def spell(name: str) -> str:
        spelled = flag(name)
        set_by = variable(spelled) if spelled.startswith("--") and name == error.field else ""
        return f"{spelled} (or {set_by})" if os.environ.get(set_by) else spelled

    return error.sentence(spell)


def variable(long_flag: str) -> str:
    """The environment variable behind a long flag: ``--max-new-tokens`` → ``BLIP2CLI_…``."""
    return PREFIX + long_flag.removeprefix("--").replace("-", "_").upper()


@functools.cache
def _flags() -> dict[str, str]:
    flags: dict[str, str] = {}
    for group in GROUPS:
        for name, declared in declarations(group):
            positional = declared.metavar if declared.positional else None
            flags.setdefault(name, positional or declared.long_flag(name))
    return flags
