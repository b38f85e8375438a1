"""Write the man pages into ``build/man``: ``python docs/make_man.py``.

One of the program, and one of each command, made from the same declarations as the reference. Their
macros are those of ``man(7)``.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import make_reference as reference
import typer.main

from blip2cli import __version__
from blip2cli.cli.app import COMMANDS, application
from blip2cli.cli.flags.short_help import value_name
from blip2cli.cli.terminal.spelling import variable

FOLDER = Path(__file__).parents[1] / "build" / "man"


def pages() -> dict[str, str]:
    """Each page by the name of its file."""
    group: Any = typer.main.get_command(application())
    found = {"blip2cli.1": _program(group)}
    for name in COMMANDS:
        found[f"blip2cli-{name}.1"] = _command(name, group.commands[name])
    return {name: "\n".join(lines) + "\n" for name, lines in found.items()}


def _program(group: Any) -> Iterator[str]:
    yield from _head("blip2cli", "captions, answers and embeddings of images from BLIP-2")
    yield ".B blip2cli"
    yield r".I command"
    yield r"[\fIoptions\fR] [\fIarguments\fR]"
    yield ".SH DESCRIPTION"
    yield _roff(_words(group.help))
    yield ".SH COMMANDS"
    for name, summary in COMMANDS.items():
        yield ".TP"
        yield rf"\fBblip2cli\-{name}\fR(1)"
        yield _roff(summary)
    yield ".SH OPTIONS"
    for parameter in group.params:
        yield from _option(parameter)
    yield from _tail(group, [f"blip2cli-{name}" for name in COMMANDS])


def _command(name: str, command: Any) -> Iterator[str]:
    paragraphs = [_words(text) for text in command.help.split("\n\n")]
    summary = paragraphs[0].rstrip(".")
    yield from _head(f"blip2cli-{name}", summary[0].lower() + summary[1:])
    arguments, options = reference.parameters(command)
    yield f".B blip2cli {name}"
    yield r"[\fIoptions\fR]"
    for argument in arguments:
        shown = rf"\fI{_roff(argument.metavar)}\fR"
        yield shown if argument.required else f"[{shown}]"
    yield ".SH DESCRIPTION"
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".PP"
        yield _roff(paragraph)
    for argument in arguments:
        yield ".TP"
        yield rf"\fI{_roff(argument.metavar)}\fR"
        yield _roff(reference.plain(argument.help))
    yield ".SH OPTIONS"
    panel = None
    for option in options:
        if option.rich_help_panel != panel:
            panel = option.rich_help_panel
            yield f'.SS "{panel or "Help"}"'
        yield from _option(option)
    yield from _tail(command, ["blip2cli"])


def _head(name: str, summary: str) -> Iterator[str]:
    day = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    date = time.strftime("%Y-%m-%d", day)
    yield f'.TH {_roff(name.upper())} 1 {date} "blip2cli {__version__}" "User Commands"'
    yield ".SH NAME"
    yield rf"{_roff(name)} \- {_roff(summary)}"
    yield ".SH SYNOPSIS"


def _option(parameter: Any) -> Iterator[str]:
    flags = [*sorted(parameter.opts, key=len), *parameter.secondary_opts]
    shown = ", ".join(rf"\fB{_roff(flag)}\fR" for flag in flags)
    if value := value_name(parameter):
        shown += rf" \fI{_roff(value)}\fR"
    yield ".TP"
    yield shown
    text = reference.plain(parameter.help)
    choices = parameter.type_descriptor.choices
    if choices:
        text += f" Values: {', '.join(choices)}."
    default = reference.default_of(parameter).strip("`")
    yield _roff(f"{text} Default: {default}." if default else text)
    if parameter.envvar or "env var:" in parameter.help:
        yield ".br"
        yield _roff(f"Variable: {variable(max(parameter.opts, key=len))}.")


def _tail(command: Any, others: list[str]) -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in sorted(reference.EXIT_CODES.items()):
        yield ".TP"
        yield rf"\fB{code}\fR"
        yield _roff(re.sub(r"[`\\]", "", meaning))
    yield ".SH EXAMPLES"
    yield ".EX"
    yield from (_roff(line.strip()) for line in command.epilog.splitlines()[1:])
    yield ".EE"
    yield ".SH SEE ALSO"
    yield ",\n".join(rf"\fB{_roff(name)}\fR(1)" for name in others)


def _words(text: str) -> str:
    return " ".join(text.split())


def _roff(text: str) -> str:
    """``text`` as roff prints it as it is: escapes, and no request at the start of a line."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    text = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)
    return rf"\&{text}" if text.startswith(".") else text


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="ascii")
