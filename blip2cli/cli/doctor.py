"""``blip2cli doctor``: what is installed, and whether a model says what it should."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from blip2cli.cli.flags.command import Without
from blip2cli.cli.flags.spelling import flag
from blip2cli.cli.terminal.messages import coloured, complain
from blip2cli.errors import spell_options
from blip2cli.options import DoctorOptions, DoctorOutputOptions, VerbosityOptions

if TYPE_CHECKING:
    from blip2cli.doctor.environment import Environment
    from blip2cli.doctor.report import ExaminedModel, Finding, Report

EXAMPLES = "Example:  blip2cli doctor --model Salesforce/blip2-opt-2.7b"
_MARKS = {
    "ok": ("ok", "32"),
    "warn": ("warn", "33"),
    "fail": ("FAIL", "31"),
    "skipped": ("skipped", "2"),
}
_MARK = 8  # columns for "ok" and its like
_NAME = 16  # columns for names
_LEAST = 60  # columns that lines are broken to at least


def doctor(
    options: Annotated[DoctorOptions, Without(("compile",))],
    output: DoctorOutputOptions,
    report: Annotated[VerbosityOptions, Without(("quiet",))],
) -> int:
    """Show what is installed and which device is used, and check a model for silent failures."""
    from blip2cli.doctor.examine import examine
    from blip2cli.system import library_logging

    library_logging.show_library_messages(report.verbose >= 2)
    if output.json:
        found = examine(options)
        print(json.dumps(found.as_dict(flag), ensure_ascii=False, indent=2), flush=True)
    else:
        found = examine(options, Printer(sys.stdout))
    _conclude(found)
    return found.exit_code


def _conclude(report: Report) -> None:
    """The failure in one sentence, on stderr, for whoever keeps stdout elsewhere."""
    failures = report.failures
    if failures:
        first, more = failures[0], len(failures) - 1
        also = f" ({more} more failed)" if more else ""
        complain(f"{first.check} failed{also}: {spell_options(first.remedy or '', flag)}.")


class Printer:
    """Prints each part of the report as soon as it is known."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._coloured = coloured(stream)
        self._listed = False
        # Lines are broken for a person's eyes only; grep wants each in one piece.
        columns = shutil.get_terminal_size().columns if stream.isatty() else 0
        self._width = max(columns, _LEAST) if columns else sys.maxsize

    def __call__(self, part: Environment | ExaminedModel | Finding) -> None:
        from blip2cli.doctor.environment import Environment
        from blip2cli.doctor.report import ExaminedModel

        if isinstance(part, Environment):
            for name, value in _facts(part):
                self._line(name, value)
        elif isinstance(part, ExaminedModel):
            self._blank()
            self._line("model", f"{part.name} ({part.family}), {part.path}")
            self._line("runs on", part.reason)
        else:
            self._finding(part)

    def _finding(self, finding: Finding) -> None:
        if not self._listed:
            self._blank()
            self._listed = True
        word, colour = _MARKS[finding.status]
        mark = f"{word:<{_MARK}}"
        if self._coloured:
            mark = f"\x1b[{colour}m{mark}\x1b[0m"
        self._line(finding.check, finding.found, mark)
        if finding.remedy is not None:
            self._line("", f"→ {finding.remedy}.", " " * _MARK)

    def _line(self, name: str, value: str, mark: str = "") -> None:
        from blip2cli.storage.text_encoding import printable  # errors and paths may hold anything

        start = f"{name:<{_NAME}} "
        indent = " " * (len(start) + (_MARK if mark else 0))
        lines = textwrap.wrap(
            printable(spell_options(value, flag)),
            self._width - len(indent),
            break_on_hyphens=False,
            break_long_words=False,
        ) or [""]
        text = f"\n{indent}".join(lines)
        print(f"{mark}{start}{text}", file=self._stream, flush=True)

    def _blank(self) -> None:
        print(file=self._stream)


def _facts(around: Environment) -> list[tuple[str, str]]:
    """The environment as lines: name and value."""
    installed = [f"{name} {version}" for name, version in around.versions.items() if version]
    formats = [
        f"{name.replace('_', '-')} {version}" if version else f"no {name.replace('_', '-')}"
        for name, version in around.image_formats.items()
    ]
    cpu, memory, cache, network = around.cpu, around.memory, around.cache, around.network
    limit = "no cgroup limit" if memory.limit is None else f"cgroup limit {_size(memory.limit)}"
    reached = "offline (HF_HUB_OFFLINE)" if network.offline else "online"
    token = "with a token" if network.token else "without a token"
    return [
        ("blip2cli", f"{around.blip2cli}, Python {around.python}, {around.system}"),
        ("packages", ", ".join(installed)),
        ("image formats", ", ".join(formats)),
        *((one.name, _accelerator(one)) for one in around.accelerators),
        ("cpu", ": ".join(filter(None, (cpu.model, ", ".join(cpu.instructions))))),
        ("cores", f"{cpu.usable_cores} usable of {cpu.cores}; torch threads: {cpu.torch_threads}"),
        ("memory", f"{_size(memory.available)} available of {_size(memory.total)}; {limit}"),
        ("large models", around.large_models),
        ("cache", f"{cache.path}, {_size(cache.free)} free"),
        ("hub", f"{network.endpoint}, {reached}, {token}"),
    ]


def _accelerator(one: Any) -> str:
    room = f", {_size(one.memory)}" if one.memory else ""
    return f"{one.kind}{room}, {'bfloat16' if one.bfloat16 else 'no bfloat16'}"


def _size(count: int | None) -> str:
    if count is None:
        return "an unknown amount"
    return f"{count / 2**30:.1f} GiB"
