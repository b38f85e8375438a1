"""The options of ``blip2cli convert`` for checkpoints, and what it says about them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from blip2cli.cli.flags.declare import option
from blip2cli.cli.flags.expand import environment
from blip2cli.cli.flags.options import DTYPE_HELP, QUANTIZE_HELP
from blip2cli.errors import OptionError
from blip2cli.exit_codes import SUCCESS
from blip2cli.options import Dtype

if TYPE_CHECKING:
    from blip2cli.convert.checkpoints.options import CheckpointOptions

PANEL = "Checkpoints"


@dataclass(frozen=True)
class CheckpointFlags:
    """What belongs to the conversion of checkpoints alone."""

    language_model: Annotated[
        str | None,
        option(
            "--language-model",
            metavar="MODEL",
            panel=PANEL,
            help="LAVIS: OPT or Flan-T5, which its files do not hold; for retrieval BERT, whose "
            "tokenizer it takes. A directory or hub id.",
            show_default=False,
        ),
    ] = None
    vision_weights: Annotated[
        str | None,
        option(
            "--vision-weights",
            metavar="FILE",
            panel=PANEL,
            help="LAVIS: eva_vit_g.pth, for files that hold no vision encoder.",
            show_default=False,
        ),
    ] = None
    like: Annotated[
        str | None,
        option(
            "--like",
            metavar="MODEL",
            panel=PANEL,
            help="LAVIS: a BLIP-2 whose settings, tokenizer and whatever else is missing are "
            "taken. \\[default: the released model with the same shapes]",
            show_default=False,
        ),
    ] = None
    dtype: Annotated[
        Dtype,
        option("--dtype", panel=PANEL, help=DTYPE_HELP),
    ] = "auto"
    quantize: Annotated[
        Literal["int8"] | None,
        option("--quantize", panel=PANEL, help=QUANTIZE_HELP, show_default=False),
    ] = None
    max_shard_size: Annotated[
        str | None,
        option(
            "--max-shard-size",
            metavar="SIZE",
            panel=PANEL,
            help="Largest weight file, such as 2GB. \\[default: 5GB]",
            show_default=False,
        ),
    ] = None
    check: Annotated[
        bool,
        option("--check", panel=PANEL, help="Compare the result with the source, and print it."),
    ] = False

    def options(self, paths: list[str], overwrite: bool) -> CheckpointOptions:
        """The option object of a conversion."""
        from blip2cli.convert.checkpoints.options import DEFAULT_SHARD_SIZE, CheckpointOptions

        if len(paths) > 2:
            raise OptionError(
                f"Checkpoints are converted one at a time, and {len(paths) - 1} were given; name "
                "one, and last what it becomes."
            )
        return CheckpointOptions(
            source=paths[0],
            destination=paths[1],
            overwrite=overwrite,
            language_model=self.language_model,
            vision_weights=self.vision_weights,
            like=self.like,
            dtype=None if self.dtype == "auto" else self.dtype,
            quantize=self.quantize,
            max_shard_size=self.max_shard_size or DEFAULT_SHARD_SIZE,
            check=self.check,
        )


def refuse(flags: Any, ours: str, theirs: str, shared: tuple[str, ...] = ()) -> None:
    """Raise ``OptionError`` when an option is given that is for the other kind of conversion.

    ``flags`` is a dataclass of options for ``theirs`` alone, but for those that are ``shared``.
    What comes from a variable is meant for whichever commands it fits, and only passed over.
    """
    for field in fields(flags):
        name = {"read_as": "from", "write_as": "to"}.get(field.name, field.name)
        flag = f"--{name.replace('_', '-')}"
        if field.name in shared or environment(flag) in os.environ:
            continue
        if getattr(flags, field.name) != field.default:
            raise OptionError(f"{flag} is for {theirs}, and {ours} converted here; leave it out.")


def convert_checkpoint(
    options: CheckpointOptions, progress: Callable[[int, int], None] | None, quiet: bool
) -> int:
    """Convert, and say on stderr what was done."""
    from blip2cli.cli.terminal.console import duration
    from blip2cli.convert.checkpoints import convert_checkpoint as run
    from blip2cli.storage.text_encoding import printable

    more: dict[str, Any] = {} if progress is None else {"progress": progress}
    done = run(options, **more)
    if not quiet:
        for note in done.notes:
            print(printable(note), file=sys.stderr)
        size, unit = (done.bytes / 1e9, "GB") if done.bytes >= 1e9 else (done.bytes / 1e6, "MB")
        line = f"{done.weights} weights, {size:.1f} {unit}, into {options.destination}; "
        print(printable(f"{line}{duration(done.seconds)}."), file=sys.stderr)
    return SUCCESS
