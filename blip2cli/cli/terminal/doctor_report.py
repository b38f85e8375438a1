"""What ``doctor`` found, as lines for a person."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any, TextIO

from blip2cli.cli.terminal.error_messages import coloured
from blip2cli.cli.terminal.spelling import readable  # errors and paths may hold anything

if TYPE_CHECKING:
    from blip2cli.doctor.environment import Environment
    from blip2cli.doctor.report import ExaminedModel, Finding

_MARKS = {
    "ok": ("ok", "32"),
    "warn": ("warn", "33"),
    "fail": ("FAIL", "31"),
    "skipped": ("skipped", "2"),
}
_MARK = 8  # columns for "ok" and the like
_NAME = 16  # columns for names
_MIN_WIDTH = 60  # columns of a line at least


class DoctorPrinter:
    """Prints each part of the report as soon as it is known."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._coloured = coloured(stream)
        self._listed = False
        # Lines are broken for a person's eyes only; grep wants each in one piece.
        columns = shutil.get_terminal_size().columns if stream.isatty() else 0
        self._width = max(columns, _MIN_WIDTH) if columns else sys.maxsize

    def __call__(self, part: Environment | ExaminedModel | Finding) -> None:
        from blip2cli.doctor.environment import Environment
        from blip2cli.doctor.report import ExaminedModel

        if isinstance(part, Environment):
            for name, value in _facts(part):
                self._line(name, value)
        elif isinstance(part, ExaminedModel):
            print(file=self._stream)
            self._line("model", f"{part.name} ({part.family}), {part.path}")
            self._line("runs on", part.reason)
        else:
            self._finding(part)

    def _finding(self, finding: Finding) -> None:
        if not self._listed:
            print(file=self._stream)
            self._listed = True
        word, colour = _MARKS[finding.status]
        mark = f"{word:<{_MARK}}"
        if self._coloured:
            mark = f"\x1b[{colour}m{mark}\x1b[0m"
        self._line(finding.check, finding.found, mark)
        if finding.remedy is not None:
            self._line("", f"→ {finding.remedy}.", " " * _MARK)

    def _line(self, name: str, value: str, mark: str = "") -> None:
        start = f"{name:<{_NAME}} "
        indent = " " * (len(start) + (_MARK if mark else 0))
        lines = textwrap.wrap(
            readable(value),
            self._width - len(indent),
            break_on_hyphens=False,
            break_long_words=False,
        ) or [""]
        text = f"\n{indent}".join(lines)
        print(f"{mark}{start}{text}", file=self._stream, flush=True)


def _facts(found: Environment) -> list[tuple[str, str]]:
    """The environment as lines: name and value."""
    installed = [f"{name} {version}" for name, version in found.versions.items() if version]
    formats = [
        f"{name.replace('_', '-')} {version}" if version else f"no {name.replace('_', '-')}"
        for name, version in found.image_formats.items()
    ]
    cpu, memory, cache, network = found.cpu, found.memory, found.cache, found.network
    limit = "no cgroup limit" if memory.limit is None else f"cgroup limit {_size(memory.limit)}"
    reached = "offline (HF_HUB_OFFLINE)" if network.offline else "online"
    token = "with a token" if network.token else "without a token"
    return [
        ("blip2cli", f"{found.blip2cli}, Python {found.python}, {found.system}"),
        ("packages", ", ".join(installed)),
        ("image formats", ", ".join(formats)),
        *((one.name, _accelerator(one)) for one in found.accelerators),
        ("cpu", ": ".join(filter(None, (cpu.model, ", ".join(cpu.instructions))))),
        ("cores", f"{cpu.usable_cores} usable of {cpu.cores}; torch threads: {cpu.torch_threads}"),
        ("memory", f"{_size(memory.available)} available of {_size(memory.total)}; {limit}"),
        ("large models", found.large_models),
        ("cache", f"{cache.path}, {_size(cache.free)} free"),
        ("hub", f"{network.endpoint}, {reached}, {token}"),
    ]


def _accelerator(one: Any) -> str:
    memory = f", {_size(one.memory)}" if one.memory else ""
    return f"{one.kind}{memory}, {'bfloat16' if one.bfloat16 else 'no bfloat16'}"


def _size(count: int | None) -> str:
    if count is None:
        return "an unknown amount"
    return f"{count / 2**30:.1f} GiB"
