"""The Typer application and the process around it."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
import typer.main

from blip2cli import __version__
from blip2cli.cli import ask, caption, convert, doctor, embed
from blip2cli.cli.expand import expand
from blip2cli.cli.mistakes import sentence
from blip2cli.cli.say import complain, unexpected

app = typer.Typer(
    name="blip2cli",
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example:  blip2cli caption sample_images --model tiny",
)
app.command(epilog=caption.EXAMPLES)(expand(caption.caption))
app.command(epilog=ask.EXAMPLES)(expand(ask.ask))
app.command(epilog=embed.EXAMPLES)(expand(embed.embed))
app.command(epilog=convert.EXAMPLES)(expand(convert.convert))
app.command(epilog=doctor.EXAMPLES)(expand(doctor.doctor))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"blip2cli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Captions, answers and embeddings from BLIP-2 for whole folders of images."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def call(arguments: Sequence[str]) -> int:
    """Parse ``arguments``, do what they say and return the exit code."""
    try:
        # Not app(): that would put Typer's own hook in place of ours for unexpected errors.
        command = typer.main.get_command(app)
        code = command.main(list(arguments), prog_name="blip2cli", standalone_mode=False)
    except typer.TyperException as error:
        complain(sentence(error))
        return 2
    except typer.Abort:
        return 130
    except Exception as error:  # noqa: BLE001 - a traceback helps nobody but us
        return unexpected(error, 0)
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """The console script."""
    if sys.stdout is None:  # closed (``>&-``): rows may still go to a file
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names need not be encodable; stderr is as lenient by itself.
        sys.stdout.reconfigure(errors="backslashreplace")
    code = call(sys.argv[1:])
    if "torch" not in sys.modules:
        sys.exit(code)
    # Everything is written and closed. Taking torch apart would cost up to a second.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
