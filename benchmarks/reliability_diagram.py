"""A reliability diagram as SVG, in colours that are readable on white and on black."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

_GREY, _BEFORE, _AFTER = "#7d8590", "#db6d28", "#388bfd"
_SIDE, _LEFT, _TOP, _GAP = 220, 52, 30, 40  # pixels: a plot, and what is around it


def diagram(plots: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> str:
    """One plot for each entry: bins of ``before`` and ``after``, as ``calibrate`` has them."""
    width = _LEFT + len(plots) * (_SIDE + _GAP)
    height = _TOP + _SIDE + 74
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="12"',
        f'fill="{_GREY}" role="img">',
        "<title>Share of right answers over confidence, before and after calibration</title>",
    ]
    for number, (title, bins) in enumerate(plots.items()):
        lines += _plot(title, bins, _LEFT + number * (_SIDE + _GAP), first=number == 0)
    at = _LEFT
    for name, color in (("before", _BEFORE), ("after calibration", _AFTER)):
        y = _TOP + _SIDE + 58
        lines.append(f'<circle cx="{at + 5}" cy="{y - 4}" r="4" fill="{color}"/>')
        lines.append(f'<text x="{at + 14}" y="{y}">{name}</text>')
        at += 80
    return "\n".join([*lines, "</svg>", ""])


def _plot(title: str, bins: Mapping[str, Any], left: int, first: bool) -> Iterator[str]:
    bottom = _TOP + _SIDE
    yield f'<text x="{left}" y="{_TOP - 10}">{escape(title)}</text>'
    yield (
        f'<rect x="{left}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" fill="none" '
        f'stroke="{_GREY}"/>'
    )
    yield (
        f'<line x1="{left}" y1="{bottom}" x2="{left + _SIDE}" y2="{_TOP}" stroke="{_GREY}" '
        'stroke-dasharray="4 4"/>'
    )
    for tick in (0, 0.5, 1):
        x, y = left + tick * _SIDE, bottom - tick * _SIDE
        yield f'<text x="{x:g}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>'
        if first:
            yield f'<text x="{left - 6}" y="{y + 4:g}" text-anchor="end">{tick:g}</text>'
    yield f'<text x="{left + _SIDE / 2:g}" y="{bottom + 34}" text-anchor="middle">confidence</text>'
    if first:
        x, y = left - 32, _TOP + _SIDE / 2
        yield (
            f'<text x="{x}" y="{y:g}" text-anchor="middle" '
            f'transform="rotate(-90 {x} {y:g})">share right</text>'
        )
    for name, color in (("before", _BEFORE), ("after", _AFTER)):
        points = [
            (left + one["confidence"] * _SIDE, bottom - one["accuracy"] * _SIDE)
            for one in bins[name]
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>'
        for x, y in points:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>'
