"""The plots and tables of measurements are what ``benchmarks/results.json`` holds."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

from tests.docs.scripts import DOCS, load_script


def test_plots_and_tables_are_up_to_date() -> None:
    for path, text in load_script("make_plots").files().items():
        assert path.read_text(encoding="utf-8") == text, "run python docs/make_plots.py"


def test_every_race_is_drawn_for_light_and_dark() -> None:
    module = load_script("make_plots")
    known = json.loads(module.RESULTS.read_text(encoding="utf-8"))
    for machine, races in known.items():
        path = module.FOLDER / "images" / f"ratios-{module.slug(machine)}.svg"
        text = path.read_text(encoding="utf-8")
        ET.fromstring(text)
        assert "prefers-color-scheme: dark" in text
        for race, one in races.items():
            assert (f">{race}<" in text) == bool(one["results"]), race


def test_every_plot_is_on_the_page() -> None:
    module = load_script("make_plots")
    page = module.PAGE.read_text(encoding="utf-8")
    for path in module.files():
        if path.suffix == ".svg":
            assert f"(images/{path.name})" in page, path.name


# Rows of the table of the README, by how they begin: the race, and the one that vLLM took part in.
RACES = {
    "captions, shapes": ("caption-full", "caption-vllm"),
    "five questions": ("ask-full", "ask-vllm"),
    "captions, the same": ("int8-full", ""),
    "10,000 files": ("shell-10000", ""),
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_figures_of_the_readme_are_measured() -> None:
    page = load_script("make_plots").PAGE.read_text(encoding="utf-8")
    measured: dict[tuple[str, str], dict[str, str]] = {}  # by the kind of machine and the race
    for machine, table in re.findall(r"<!-- table: (\S+) -->\n(.*?)<!-- end -->", page, re.DOTALL):
        head, _, *rest = table.strip().splitlines()
        names = [name.removeprefix("beside ").strip("`") for name in cells(head)]
        for line in rest:
            found = dict(zip(names, cells(line), strict=True))
            found["images/s"] = found["images/s"].partition(",")[0]
            measured[machine.partition("-")[0], found["race"]] = found
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    section = readme.split("## How fast")[1].split("\n## ")[0]
    lines = section.split("|---|\n")[1].split("\n\n")[0].splitlines()
    assert len(lines) == 2 * len(RACES)
    work = ""
    for line in lines:
        named, machine, *figures = cells(line)
        work = named or work
        (race, beside_vllm) = next(
            races for start, races in RACES.items() if work.startswith(start)
        )
        kind = "amd" if "EPYC" in machine else "intel"
        ours = measured[kind, race]
        vllm = measured.get((kind, beside_vllm), {"vllm": ""})["vllm"]
        expected = [ours["images/s"], ours["batched"], vllm, ours["docs"]]
        assert [each.replace("x", "") for each in figures] == expected, line
    caption, ask = (measured["amd", f"{work}-vllm"] for work in ("caption", "ask"))
    text = " ".join(section.split())
    assert f"beside {caption['images/s']} and {ask['images/s']} images/s of ours" in text
    assert f"five questions are {ask['vllm-default']} times as fast" in text
