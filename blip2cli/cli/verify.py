"""``blip2cli verify``: whether outputs are whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from blip2cli.cli.flags.command import Required
from blip2cli.cli.terminal.spelling import as_json, readable
from blip2cli.options import VerifyOptions

EXAMPLES = (
    "blip2cli verify captions.jsonl",
    "blip2cli verify captions.jsonl '*.parquet' --json",
)


def verify(options: Annotated[VerifyOptions, Required(("outputs",))]) -> int:
    """Read outputs as a whole, and say what is sound in them.

    OUT is an output of a run, finished or not, or what one was converted into; of the shares of an
    output it is said whether all are there. Exit codes: 0 all is sound, 1 something is damaged or
    missing, 2 something cannot be read.
    """
    from blip2cli.convert.verify import verify_all

    worst = 0
    for found in verify_all(options.outputs):
        worst = max(worst, found.exit_code)
        if options.json:
            print(as_json(asdict(found)), flush=True)
        else:
            print(readable(f"{found.path}: {found}."), flush=True)
    return worst
