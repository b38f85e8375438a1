"""The reliability diagram of ``benchmarks/calibration.py``."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from benchmarks.reliability_diagram import diagram


def test_a_diagram_is_an_image_with_a_point_for_each_bin() -> None:
    bins = [{"confidence": x / 15, "accuracy": x / 20, "count": 9} for x in range(15)]
    root = ET.fromstring(diagram({"a & b": {"before": bins, "after": bins}}))
    circles = root.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 2 * 15 + 2  # and those of the legend
    assert all(0 <= float(each.attrib["cx"]) <= float(root.attrib["width"]) for each in circles)
