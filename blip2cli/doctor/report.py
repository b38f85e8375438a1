"""Results of the doctor, as values: one finding a check, and the facts about the machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from blip2cli.doctor.environment import Environment
from blip2cli.errors import spell_options

Status = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """The result of one check.

    ``found`` and ``remedy`` are texts without a full stop, in which options stand as
    ``errors.option(...)``; ``errors.spell_options`` writes them out.
    """

    status: Status
    found: str
    remedy: str | None = None  # given with "fail" and "warn"


@dataclass(frozen=True)
class Finding(Outcome):
    """The result of the check called ``check``, a stable name that scripts may rely on."""

    check: str = ""


@dataclass(frozen=True)
class ExaminedModel:
    """The model that was checked."""

    name: str
    path: str  # its directory
    family: str  # the family's name
    device: str
    dtype: str
    reason: str  # why this device and this precision


@dataclass(frozen=True)
class Report:
    """Everything that was found."""

    environment: Environment
    model: ExaminedModel | None
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The checks that failed, in order."""
        return tuple(finding for finding in self.findings if finding.status == "fail")

    @property
    def exit_code(self) -> int:
        """0, or 1 when a check failed."""
        return 1 if self.failures else 0

    def as_dict(self, spell: Callable[[str], str] = str) -> dict[str, Any]:
        """The report as plain JSON values, options as ``spell`` writes them."""

        def spelled(text: str | None) -> str | None:
            return None if text is None else spell_options(text, spell)

        model = None if self.model is None else asdict(self.model)
        if model is not None:
            model["reason"] = spelled(model["reason"])
        environment = asdict(self.environment)
        environment["large_models"] = spelled(environment["large_models"])
        return {
            "ok": not self.failures,
            "environment": environment,
            "model": model,
            "checks": [
                {
                    "check": finding.check,
                    "status": finding.status,
                    "found": spelled(finding.found),
                    "remedy": spelled(finding.remedy),
                }
                for finding in self.findings
            ],
        }


def ok(found: str) -> Outcome:
    """Nothing is wrong."""
    return Outcome("ok", found)


def warn(found: str, remedy: str) -> Outcome:
    """Works here, but may not elsewhere, or is unusual."""
    return Outcome("warn", found, remedy)


def fail(found: str, remedy: str) -> Outcome:
    """Results would be wrong, or there would be none."""
    return Outcome("fail", found, remedy)


def skipped(why: str) -> Outcome:
    """Not checked."""
    return Outcome("skipped", why)
