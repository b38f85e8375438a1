"""The plots and tables of measurements are what ``benchmarks/results.json`` holds."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).parents[2] / "docs" / "make_plots.py"


def make_plots() -> ModuleType:
    found = importlib.util.spec_from_file_location("make_plots", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses look for it there
    found.loader.exec_module(module)
    return module


def test_plots_and_tables_are_up_to_date() -> None:
    for path, text in make_plots().files().items():
        assert path.read_text(encoding="utf-8") == text, "run python docs/make_plots.py"


def test_every_race_is_drawn_for_light_and_dark() -> None:
    module = make_plots()
    known = json.loads(module.RESULTS.read_text(encoding="utf-8"))
    for machine, races in known.items():
        path = module.FOLDER / "images" / f"ratios-{module.slug(machine)}.svg"
        text = path.read_text(encoding="utf-8")
        ET.fromstring(text)
        assert "prefers-color-scheme: dark" in text
        for race, one in races.items():
            assert (f">{race}<" in text) == bool(one["results"]), race


def test_every_plot_is_on_the_page() -> None:
    module = make_plots()
    page = module.PAGE.read_text(encoding="utf-8")
    for path in module.files():
        if path.suffix == ".svg":
            assert f"(images/{path.name})" in page, path.name


def test_figures_of_the_readme_are_measured() -> None:
    page = make_plots().PAGE.read_text(encoding="utf-8")
    readme = (SCRIPT.parents[1] / "README.md").read_text(encoding="utf-8")
    section = readme.split("## How fast")[1].split("\n## ")[0]
    figures = re.findall(r"(?<=\| )\d[\d.]*(?=x| \|)", section)
    assert len(figures) > 10
    assert [each for each in figures if f"| {each}" not in page] == []
