"""A calibration as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from blip2cli.cli.terminal.run_summary import count_of
from blip2cli.tasks.precision import reached

if TYPE_CHECKING:
    from blip2cli.evaluate.calibration.run import Calibrated

_PRECISIONS = (0.9, 0.95, 0.99)
_SHOWN = 5  # questions with a temperature of their own


def calibration_lines(found: Calibrated) -> Iterator[str]:
    """What is printed of a calibration."""
    written = found.calibration
    yield (
        f"{count_of(written['labels'], 'label')} about {count_of(written['images'])}; judged on "
        f"{written['folds']} folds of images that it was not fitted to:"
    )
    before, after = written["before"], written["after"]
    width = max(map(len, before))
    yield f"  {'':<{width}}  {'before':>9}  {'after':>9}"
    for name in before:
        yield f"  {name:<{width}}  {_number(before[name])}  {_number(after[name])}"
    accuracy = found.accuracy
    yield f"accuracy with its 95 % interval: {_with_interval(accuracy)}"
    yield from _fitted(written)
    if len(found.compared) > 1:
        yield "compared, on the folds held out:"
        for one in found.compared:
            line = (
                f"  {one.name}: accuracy {one.accuracy:.4f}, brier {one.brier:.4f}, "
                f"risk_coverage_area {one.risk_coverage_area:.4f}"
            )
            if one.difference is not None:
                line += f"; difference in accuracy {_with_interval(one.difference, '+.4f')}"
            yield line
    yield "shown by these labels, with 95 % certainty:"
    for precision in _PRECISIONS:
        last = reached(written["thresholds"], precision, written["design_effect"])
        yield f"  precision {precision:g}: {_where(last, written)}"


def _fitted(written: dict[str, Any]) -> Iterator[str]:
    if written["kind"] == "choices":
        questions = written["questions"]
        line = f"temperature {written['temperature']:.3f} of choices compared by {written['norm']}"
        yield line + (", then isotonic regression" if written["curve"] else "")
        for text, one in list(questions.items())[:_SHOWN]:
            yield f"  {one['temperature']:.3f} for {text!r} ({count_of(one['labels'], 'label')})"
        if len(questions) > _SHOWN:
            yield f"  … and {len(questions) - _SHOWN} more questions with their own"
    else:
        method = {"platt": "Platt scaling", "isotonic": "isotonic regression"}
        yield f"{method[written['curve']['method']]} of {written['norm']}"


def _number(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.4f'):>9}"


def _with_interval(figure: Any, form: str = ".4f") -> str:
    value, low, high = (format(x, form) for x in (figure.value, figure.low, figure.high))
    return f"{value} [{low}, {high}]"


def _where(line: tuple[float, int, float] | None, written: dict[str, Any]) -> str:
    if line is None:
        return "at no confidence"
    return f"above confidence {line[0]:.4f}, {line[1] / written['labels']:.1%} of the answers"
