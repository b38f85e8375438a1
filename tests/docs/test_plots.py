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


def test_figures_of_the_readme_are_measured() -> None:
    page = load_script("make_plots").PAGE.read_text(encoding="utf-8")
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    section = readme.split("## How fast")[1].split("\n## ")[0]
    figures = re.findall(r"(?<=\| )\d[\d.]*(?=x| \|)", section)
    assert len(figures) > 10
    assert [each for each in figures if f"| {each}" not in page] == []
