"""The Typer application and the process around it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Container, Iterable, Sequence
from typing import Annotated, NoReturn

import typer
import typer.main

from blip2cli import __version__, exit_codes
from blip2cli.cli.flags.completed_line import COMPLETE, completed_words
from blip2cli.cli.flags.short_help import HelpAll, ShortHelpCommand, ShortHelpGroup
from blip2cli.cli.terminal.error_messages import complain, unexpected
from blip2cli.cli.terminal.streams import open_standard_streams
from blip2cli.cli.terminal.usage_errors import usage_sentence
from blip2cli.errors import Blip2CliError
from blip2cli.system.utf8_mode import enter_utf8_mode

# Name, and its line in the list of commands. A command's own module is imported only when it is the
# one that is asked for: the others would cost as much as all the rest of ``--help``.
COMMANDS = {
    "caption": "Write a caption for every image, with its mean token log-probability.",
    "ask": "Answer questions about every image: one row an image and question.",
    "embed": "Write an embedding of every image, or of every text.",
    "convert": "Convert results into another format, or a checkpoint into another layout.",
    "verify": "Read outputs as a whole, and say what is sound in them.",
    "eval": "Compute metrics of an output against references, each with a 95 % interval.",
    "calibrate": "Learn from labels how sure answers or captions are, for runs with --calibration.",
    "report": "Write a page that shows an output: pictures, texts, confidence, failures, metrics.",
    "schema": "Print the JSON Schema of rows, for programs that check or type them.",
    "doctor": "Show what is installed and which device is used, and check a model for silent "
    "failures.",
}
EXAMPLES = (
    "blip2cli caption sample_images --model tiny",
    "blip2cli ask photos -q 'what is it?' -o what.parquet",
)


def application(names: Container[str] = COMMANDS) -> typer.Typer:
    """The application with the commands of ``names`` in full; of the others only the name."""
    app = typer.Typer(
        name="blip2cli",
        pretty_exceptions_enable=False,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        cls=ShortHelpGroup,
        epilog=_examples(EXAMPLES),
    )
    for name, summary in COMMANDS.items():
        if name in names:
            from blip2cli.cli.flags.command import command as as_command  # and all options

            module = importlib.import_module(f"blip2cli.cli.{name}")
            app.command(name, cls=ShortHelpCommand, epilog=_examples(module.EXAMPLES))(
                as_command(getattr(module, name))
            )
        else:
            app.command(name, help=summary)(lambda: None)  # only listed
    app.callback()(root)
    return app


def _examples(lines: Iterable[str]) -> str:
    return "\n  ".join(("Examples", *lines))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"blip2cli {__version__}")
        raise typer.Exit


def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
    help_all: HelpAll = False,
) -> None:
    """Captions, answers and embeddings from BLIP-2 for whole folders of images."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(exit_codes.WRONG_INPUT)


def call(arguments: Sequence[str]) -> int:
    """Parse ``arguments``, do what they say and return the exit code."""
    try:
        os.getcwd()
    except FileNotFoundError:  # libraries end the process when they meet this
        complain("The folder you are in was deleted; go to one that exists.")
        return exit_codes.WRONG_INPUT
    completing = COMPLETE in os.environ  # set by the shell, Typer looks at it
    try:
        app = application(completed_words() if completing else arguments[:1])
        # Not app(): that would put Typer's own hook in place of ours for unexpected errors.
        command = typer.main.get_command(app)
        code = command.main(list(arguments), prog_name="blip2cli", standalone_mode=False)
    except typer.TyperException as error:
        complain(usage_sentence(error))
        return exit_codes.WRONG_INPUT
    except (typer.Abort, KeyboardInterrupt):
        return exit_codes.INTERRUPTED
    except SystemExit as ended:  # of completion; or of the printer of help, whose reader is gone
        code = int(ended.code or 0)
        return code if completing or not code else exit_codes.BROKEN_PIPE
    except Blip2CliError as error:  # of a file of options
        from blip2cli.cli.terminal.spelling import sentence

        complain(sentence(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - a traceback helps nobody but us
        return unexpected(error, 0)
    return code if isinstance(code, int) else exit_codes.SUCCESS


def main() -> NoReturn:
    """The console script."""
    enter_utf8_mode()
    open_standard_streams()
    code = call(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or exit_codes.BROKEN_PIPE
    except OSError as error:
        if not code:
            complain(f"Writing 'stdout' failed ({error.strerror}).")
            code = exit_codes.RUN_FAILED
    # Everything is written and closed. Taking torch apart would cost up to a second, a thread may
    # hang in an image that nobody waits for any more, and Python prints what it meets on the way.
    os._exit(code)
