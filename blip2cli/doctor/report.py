"""What an examination found, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from blip2cli.doctor.environment import Environment

Status = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """What one check says."""

    status: Status
    found: str
    mend: str | None = None  # one sentence; given for "fail" and "warn"


@dataclass(frozen=True)
class Finding(Outcome):
    """The same with the check's name, which scripts may rely on."""

    check: str = ""


@dataclass(frozen=True)
class Examined:
    """The model that was looked at."""

    name: str
    path: str  # the directory its files are in
    family: str  # "opt", "t5" or "itm"
    device: str
    dtype: str
    reason: str  # why this device and this precision


@dataclass(frozen=True)
class Report:
    """Everything that was found."""

    environment: Environment
    model: Examined | None
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The checks that failed, in order."""
        return tuple(finding for finding in self.findings if finding.status == "fail")

    @property
    def exit_code(self) -> int:
        """0, or 1 when a check failed."""
        return 1 if self.failures else 0

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "ok": not self.failures,
            "environment": asdict(self.environment),
            "model": None if self.model is None else asdict(self.model),
            "checks": [
                {
                    "check": finding.check,
                    "status": finding.status,
                    "found": finding.found,
                    "mend": finding.mend,
                }
                for finding in self.findings
            ],
        }


def ok(found: str) -> Outcome:
    """All is well."""
    return Outcome("ok", found)


def warn(found: str, mend: str) -> Outcome:
    """Works here, but may not elsewhere, or is unusual."""
    return Outcome("warn", found, mend)


def fail(found: str, mend: str) -> Outcome:
    """Results would be wrong, or there would be none."""
    return Outcome("fail", found, mend)


def skipped(why: str) -> Outcome:
    """Not looked at."""
    return Outcome("skipped", why)
