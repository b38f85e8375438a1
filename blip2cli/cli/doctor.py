"""``blip2cli doctor``: what is installed, and whether a model says what it should."""

from __future__ import annotations

import json
import sys
from typing import Annotated

from blip2cli.cli.flags.command import Without
from blip2cli.cli.terminal.doctor_report import DoctorPrinter
from blip2cli.cli.terminal.error_messages import complain
from blip2cli.cli.terminal.spelling import flag, with_flags
from blip2cli.options import PLACING, DoctorOptions, DoctorOutputOptions, VerbosityOptions
from blip2cli.storage.secrets import hide_secrets

EXAMPLES = (
    "blip2cli doctor",
    "blip2cli doctor --model tiny --json",
)


def doctor(
    options: Annotated[DoctorOptions, Without(("compile", *PLACING))],
    output: DoctorOutputOptions,
    report: Annotated[VerbosityOptions, Without(("quiet",))],
) -> int:
    """Show what is installed and which device is used, and check a model for silent failures."""
    from blip2cli.doctor.examine import examine
    from blip2cli.system import library_logging

    library_logging.show_library_messages(report.verbose >= 2)
    if output.json:
        found = examine(options)
        print(hide_secrets(json.dumps(found.as_dict(flag), indent=2)), flush=True)
    else:
        found = examine(options, DoctorPrinter(sys.stdout))
    if found.failures:  # once more in a sentence, for whoever keeps stdout elsewhere
        first, *others = found.failures
        also = f" ({len(others)} more failed)" if others else ""
        complain(f"{first.check} failed{also}: {with_flags(first.remedy or '')}.")
    return found.exit_code
