"""The options about what is printed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from blip2cli.errors import OptionError, option
from blip2cli.options.declare import REPORTING, OptionGroup, setting

_report = partial(setting, panel=REPORTING)


@dataclass(frozen=True)
class VerbosityOptions(OptionGroup):
    """How much is printed on stderr."""

    verbose: int = _report(
        0,
        "Say more: -v the device, the precision and why; -vv also what the libraries say.",
        short="-v",
        counted=True,
    )
    quiet: bool = _report(False, "Say nothing but errors.", short="-q", brief=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quiet and self.verbose:
            raise OptionError(
                "quiet",
                f"{option('quiet')} and {option('verbose')} contradict each other",
                "leave one out",
            )


@dataclass(frozen=True)
class ReportOptions(VerbosityOptions):
    """What a run prints on stderr."""

    dry_run: bool = _report(False, "Say what would be done, and do nothing.", brief=True)
    log_json: bool = _report(False, "Say everything as JSON, an object a line, for other programs.")


@dataclass(frozen=True)
class DoctorOutputOptions(OptionGroup):
    """The form of what ``doctor`` prints."""

    json: bool = _report(False, "Print JSON for other programs.", brief=True)
