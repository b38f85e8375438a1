"""Sound checkpoints of each family, with the findings on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from blip2cli.doctor.pictures import Picture
from blip2cli.doctor.report import Finding
from blip2cli.images.decode import decode
from blip2cli.model.checkpoint.embedded import embedded_path
from tests.checkpoints import tiny_random_itm, tiny_random_t5
from tests.doctor.broken_checkpoints import findings_on
from tests.images.pictures import draw_images


@dataclass(frozen=True)
class Sound:
    """A checkpoint with nothing wrong, and the findings on it."""

    path: Path
    findings: dict[str, Finding]


def sound(path: Path) -> Sound:
    found = findings_on(path)
    assert {finding.status for finding in found.values()} <= {"ok", "skipped"}, found
    return Sound(path, found)


@pytest.fixture(scope="session")
def opt() -> Sound:
    return sound(embedded_path("tiny"))


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    return sound(tiny_random_t5(tmp_path_factory.mktemp("doctor") / "t5"))


@pytest.fixture(scope="session")
def itm(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    return sound(tiny_random_itm(tmp_path_factory.mktemp("doctor") / "itm"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Picture, ...]:
    folder = tmp_path_factory.mktemp("pictures")
    draw_images(folder)
    return tuple(Picture(n, decode((folder / n).read_bytes()).image) for n in ("a.png", "b.jpg"))
