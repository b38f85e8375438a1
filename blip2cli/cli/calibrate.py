"""``blip2cli calibrate``: how sure answers and captions are, learnt from labels."""

from __future__ import annotations

import sys
from typing import Annotated

from blip2cli.cli.flags.command import Required
from blip2cli.cli.terminal.calibration_lines import calibration_lines
from blip2cli.cli.terminal.spelling import as_json, readable
from blip2cli.options import CalibrateOptions

EXAMPLES = (
    "blip2cli calibrate cats.jsonl --against cats.csv",
    "blip2cli calibrate cats.jsonl --against cats.csv -o cats.json",
)


def calibrate(options: Annotated[CalibrateOptions, Required(("rows",))]) -> int:
    """Learn from labels how sure answers or captions are, for runs with --calibration.

    Fits a temperature to the probabilities of choices, or a curve to the log-probabilities of
    texts, and prints how it does on labels that it was not fitted to. Without -o nothing is
    written.
    """
    from blip2cli.evaluate.calibration.run import calibrate as calibrate_rows
    from blip2cli.evaluate.calibration.write import check_destination, write_calibration

    if options.out is not None:
        read = (*options.rows, *((options.against,) if options.against else ()))
        check_destination(options.out, options.overwrite, read)
    found = calibrate_rows(options)
    if options.out is not None:
        write_calibration(options.out, found.calibration, options.overwrite)
    if options.json:
        print(as_json(found.as_dict()), flush=True)
        return 0
    for line in calibration_lines(found):
        print(readable(line), flush=True)
    for note in found.notes:
        print(readable(note), file=sys.stderr)
    return 0
