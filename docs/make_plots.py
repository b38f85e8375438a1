"""Plots and tables of ``docs/measurements.md``, made from ``benchmarks/results.json``.

``python docs/make_plots.py``. Plots are SVG in the colours of the reader's system, light or dark.
Nothing is drawn that the file does not hold; a test compares the plots and tables with it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

# No part of the package: found beside the documentation.
sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
from peers import OTHERS

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent / "benchmarks" / "results.json"
PAGE = FOLDER / "measurements.md"
WIDTH, LABEL, BAR, GAP = 720, 170, 12, 10  # pixels; of a bar the height
STYLE = """text { fill: #1f2328; font: 12px sans-serif; }
.axis { stroke: #d1d9e0; }
.one { stroke: #59636e; stroke-dasharray: 3 3; }
.docs { fill: #0969da; } .batched { fill: #bf3989; } .cached { fill: #1a7f37; }
.forward { fill: #9a6700; } .limit { fill: #0969da; }
.vllm { fill: #8250df; } .vllm-default { fill: #bc4c00; } .openvino { fill: #cf222e; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; } .axis { stroke: #3d444d; } .one { stroke: #9198a1; }
.docs { fill: #4493f8; } .batched { fill: #db61a2; } .cached { fill: #3fb950; }
.forward { fill: #d29922; } .limit { fill: #4493f8; }
.vllm { fill: #a371f7; } .vllm-default { fill: #db6d28; } .openvino { fill: #f85149; }
}"""


@dataclass(frozen=True)
class Bar:
    """One bar of a plot."""

    value: float
    kind: str  # its class in ``STYLE``
    text: str  # behind it


@dataclass(frozen=True)
class Group:
    """Bars with one label: what a race found."""

    label: str
    bars: tuple[Bar, ...]


def files() -> dict[Path, str]:
    """The plots and the page by their paths."""
    known = json.loads(RESULTS.read_text(encoding="utf-8"))
    found = {}
    text = PAGE.read_text(encoding="utf-8")
    for machine, races in known.items():
        name = slug(machine)
        found[FOLDER / "images" / f"ratios-{name}.svg"] = plot(
            f"How many times as fast blip2cli is, {machine}",
            list(ratios(races)),
            {peer: f"beside {peer}" for peer in OTHERS},
        )
        found[FOLDER / "images" / f"limit-{name}.svg"] = plot(
            f"Share of the machine's limit that is reached, in per cent, {machine}",
            list(limits(races)),
            {},
        )
        text = re.sub(
            rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)",
            lambda match, races=races: match[1] + "\n" + table(races) + "\n" + match[2],
            text,
            flags=re.DOTALL,
        )
    return found | {PAGE: text}


def slug(machine: str) -> str:
    """The name of a machine as it stands in names of files."""
    plain = re.sub(r"\(R\)|processor", "", machine, flags=re.IGNORECASE)
    return "-".join(re.findall(r"[a-z0-9]+", plain.lower()))


def ratios(races: dict[str, Any]) -> Iterator[Group]:
    """Of each race how many times as fast ours is beside each peer."""
    for race, one in sorted(races.items()):
        if bars := ratio_bars(one):
            yield Group(race, tuple(bars.values()))


def ratio_bars(one: dict[str, Any]) -> dict[str, Bar]:
    """One race's ratios by peer, with the precision of a peer where it is not ours."""
    lines = {line["peer"]: line for line in one["results"]}
    found = {}
    for peer in (peer for peer in OTHERS if peer in lines):
        ratio, dtype = lines[peer]["ratio"], lines[peer]["dtype"]
        other = f" ({dtype})" if dtype != lines["ours"]["dtype"] else ""
        found[peer] = Bar(ratio, peer, f"{ratio:.2f}{other}")
    return found


def limits(races: dict[str, Any]) -> Iterator[Group]:
    """Of each race the share of the limit, in per cent."""
    for race, one in sorted(races.items()):
        if one["fraction_of_limit"] is not None:
            share = 100 * one["fraction_of_limit"]
            yield Group(race, (Bar(share, "limit", f"{share:.0f} %"),))


def plot(title: str, groups: list[Group], legend: dict[str, str]) -> str:
    """Horizontal bars, one below the other, as an SVG."""
    used = {bar.kind for group in groups for bar in group.bars}
    shown = [(kind, text) for kind, text in legend.items() if kind in used]
    top = 40 + (24 if shown else 0)
    height = top + sum(len(group.bars) * (BAR + 2) + GAP for group in groups) + 10
    largest = max(bar.value for group in groups for bar in group.bars)
    scale = (WIDTH - LABEL - 110) / largest
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img">'
        ),
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<text x="0" y="18" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (kind, text) in enumerate(shown):
        x = 112 * number
        lines.append(f'<rect class="{kind}" x="{x}" y="30" width="{BAR}" height="{BAR}"/>')
        lines.append(f'<text x="{x + BAR + 6}" y="40">{escape(text)}</text>')
    y = top
    for group in groups:
        middle = y + len(group.bars) * (BAR + 2) / 2 + 4
        lines.append(
            f'<text x="{LABEL - 8}" y="{middle:.0f}" text-anchor="end">{escape(group.label)}</text>'
        )
        for bar in group.bars:
            length = bar.value * scale
            lines.append(
                f'<rect class="{bar.kind}" x="{LABEL}" y="{y}" width="{length:.1f}" '
                f'height="{BAR}"/>'
            )
            place = f'x="{LABEL + length + 5:.1f}" y="{y + BAR - 2}"'
            lines.append(f"<text {place}>{escape(bar.text)}</text>")
            y += BAR + 2
        y += GAP
    lines.append(f'<line class="axis" x1="{LABEL}" y1="{top - 4}" x2="{LABEL}" y2="{y - GAP}"/>')
    if shown:  # as fast as the peer
        one = f"{LABEL + scale:.1f}"
        lines.append(f'<line class="one" x1="{one}" y1="{top - 4}" x2="{one}" y2="{y - GAP}"/>')
    return "\n".join([*lines, "</svg>", ""])


def table(races: dict[str, Any]) -> str:
    """Every race with its workload and figures."""
    heads = " | ".join(f"beside `{peer}`" for peer in OTHERS)
    lines = [
        f"| race | workload | images/s | {heads} | of the limit |",
        "|---|---|---|" + "---|" * (len(OTHERS) + 1),
    ]
    for race, one in sorted(races.items()):
        if not one["results"]:
            continue
        ours = one["results"][-1]
        bars = ratio_bars(one)
        cells = [bars[peer].text if peer in bars else "" for peer in OTHERS]
        limit = one["fraction_of_limit"]
        cells.append("" if limit is None else f"{limit:.0%}")
        rate = f"{ours['images_per_second']:.3g}, {ours['dtype']}"
        lines.append(f"| {race} | {one['workload']} | {rate} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
