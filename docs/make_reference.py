"""Write two pages of the reference from the declarations: ``python docs/make_reference.py``.

Commands, options, variables and exit codes are what the program itself knows of them, so the pages
cannot say anything else than ``--help``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from blip2cli import exit_codes
from blip2cli.cli.app import COMMANDS, application
from blip2cli.convert.format_table import FORMATS
from blip2cli.options import GROUPS, declarations

FOLDER = Path(__file__).with_name("reference")

EXIT_CODES = {
    exit_codes.SUCCESS: "every image has its rows",
    exit_codes.RUN_FAILED: "the run failed, and what was written so far is safe; a check of "
    "`doctor` failed, `verify` found damage, or `eval` a figure below `--fail-under`",
    exit_codes.WRONG_INPUT: "something given is wrong (options, source, model or output): one "
    "sentence on stderr says what to do; `verify`: an output that cannot be read",
    exit_codes.FAILED_IMAGES: "finished, but some images failed",
    exit_codes.MORE_TO_DO: "stopped by `--max-duration` with rows safe and more to do; `--resume` "
    "goes on",
    exit_codes.HUNG_UP: "the terminal was closed (SIGHUP)",
    exit_codes.INTERRUPTED: "interrupted (SIGINT)",
    exit_codes.BROKEN_PIPE: "whoever read stdout went away (`\\| head`)",
    exit_codes.TERMINATED: "terminated (SIGTERM)",
}


def pages() -> dict[Path, str]:
    """Each page by its path."""
    found = {"commands.md": _commands(), "exit-codes.md": _exit_codes()}
    return {FOLDER / name: "\n".join([*lines, ""]) for name, lines in found.items()}


def _commands() -> Iterator[str]:
    yield "# Commands and options"
    yield ""
    yield "Made from the program by `make reference`; a test compares the two. `blip2cli` itself"
    yield "has `--version`, `--install-completion` and `--show-completion`, and every command"
    yield "`--help` (`-h`), one screen, and `--help-all`. How to use each is in the guides."
    commands: Any = typer.main.get_command(application())
    for name in COMMANDS:
        yield from _command(name, commands.commands[name])
    yield from _settings()
    yield from _formats()


def _exit_codes() -> Iterator[str]:
    yield "# Exit codes"
    yield ""
    yield "| code | meaning |"
    yield "|---|---|"
    for code, meaning in sorted(EXIT_CODES.items()):
        yield f"| {code} | {meaning} |"
    yield ""
    yield "After a signal the batch in flight is finished and committed, and what was finished is"
    yield "safe; a second one ends the process at once. Under `nohup`, which ignores SIGHUP, a run"
    yield "goes on."


def _command(name: str, command: Any) -> Iterator[str]:
    yield ""
    yield f"## blip2cli {name}"
    yield ""
    yield " ".join(command.help.split("\n\n")[0].split())
    arguments, options = parameters(command)
    for argument in arguments:
        yield ""
        yield f"`{argument.metavar}`: {_text(argument.help)}"
    panel = None
    for parameter in options:
        if parameter.rich_help_panel is None:  # help itself, which every command has
            continue
        if parameter.rich_help_panel != panel:
            panel = parameter.rich_help_panel
            yield ""
            yield f"### {name}: {panel}"
            yield ""
            yield "| option | value | default | meaning |"
            yield "|---|---|---|---|"
        flags = [*sorted(parameter.opts, key=len, reverse=True), *parameter.secondary_opts]
        spelled = ", ".join(f"`{flag}`" for flag in flags)
        value, default = _value(parameter), default_of(parameter)
        yield f"| {spelled} | {value} | {default} | {_text(parameter.help)} |"


def parameters(command: Any) -> tuple[list[Any], list[Any]]:
    """The arguments of a command, and its options."""
    options = [each for each in command.params if each.opts[0].startswith("-")]
    return [each for each in command.params if each not in options], options


def _value(parameter: Any) -> str:
    choices = getattr(parameter.type_descriptor, "choices", None)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    return _text(parameter.metavar or "")


def default_of(parameter: Any) -> str:
    """The default of a parameter as the page has it; empty where there is none."""
    found = re.findall(r"\[default: ([^\]]*)\]", parameter.help.replace("\\", ""))
    if found:
        return _text("; ".join(found))  # in the order of the formats that the help names
    if parameter.default in (None, False, 0, (), ""):
        return ""
    return f"`{parameter.default}`"


def plain(text: str) -> str:
    """A help text without its marks, default and variable."""
    return re.sub(r"\s*\[(default|env var): [^\]]*\]", "", text.replace("\\", ""))


def _text(text: str) -> str:
    return plain(text).replace("|", "\\|")


def _settings() -> Iterator[str]:
    names = [name for group in GROUPS for name, each in declarations(group) if each.shapes_rows]
    yield ""
    yield "## Variables and settings"
    yield ""
    yield "Every option also reads a variable: `BLIP2CLI_` and the long flag's name in capitals,"
    yield "`BLIP2CLI_MAX_NEW_TOKENS` for `--max-new-tokens`. A repeatable option takes one value a"
    yield "line of its variable."
    yield ""
    yield "In a TOML file that `--config` names, and there in tables `[jobs.NAME]`, an option is"
    yield "called as its long flag without the dashes, `max-new-tokens` or `max_new_tokens`, and an"
    yield "argument as here in small letters (`source`). The command line wins over variables, they"
    yield "over a job, it over the top of the file, and that over a preset and the defaults."
    yield ""
    yield "These options shape rows. An output keeps them as its settings, and `--resume` under"
    yield "others is refused: " + ", ".join(f"`{name}`" for name in dict.fromkeys(names)) + ";"
    yield "beside them the task with its questions, choices and texts, and the precision used."


def _formats() -> Iterator[str]:
    yield ""
    yield "## Formats of convert"
    yield ""
    yield "| format | suffixes | read | what it is |"
    yield "|---|---|---|---|"
    for one in FORMATS.values():
        suffixes = ", ".join(f"`{suffix}`" for suffix in one.suffixes)
        yield f"| `{one.name}` | {suffixes} | {'yes' if one.readable else 'no'} | {one.help} |"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
