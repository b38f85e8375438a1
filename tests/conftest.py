"""What tests of several rooms share: a small random model, a few images, the command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from blip2cli.model.checkpoint.embedded import EMBEDDED, embedded_path
from tests.s3_server import S3, serve_s3

if TYPE_CHECKING:
    from blip2cli.model.wrapper import Blip2
    from tests.torture.zygote import Zygote


def is_embedded(name: str) -> bool:
    """Whether the model ``name`` ships with this installation, weights and all."""
    return name in EMBEDDED and (embedded_path(name) / "config.json").is_file()


COMMAND = Path(sys.executable).with_name("blip2cli")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a small random BLIP-2, quick to load."""
    from tests.checkpoints import tiny_random_opt  # most tests need no torch: they start at once

    return tiny_random_opt(tmp_path_factory.mktemp("random-opt"))


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> Blip2:
    """The model of ``checkpoint``, loaded once, in float32 on the CPU."""
    from blip2cli.model.wrapper import Blip2
    from blip2cli.options import ModelOptions

    return Blip2.load(ModelOptions(str(checkpoint), device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def retrieval_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a small random retrieval model."""
    from tests.checkpoints import tiny_random_itm

    return tiny_random_itm(tmp_path_factory.mktemp("random-itm") / "itm")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five good images, one of them in a sub-folder; do not write to it."""
    folder = tmp_path_factory.mktemp("images")
    draw_images(folder)
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server; make a bucket of your own."""
    with serve_s3() as server:
        yield server


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder of five good images and, second in order, one that is none."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    draw_images(folder)
    (folder / "b-broken.jpg").write_text("this is no picture")
    return folder


def draw_images(folder: Path) -> None:
    """Five images of different sizes, colours and formats; sorted, their names run a to e."""
    (folder / "e").mkdir()
    for name, size, colours in (
        ("a.png", (40, 30), ("red", "white")),
        ("b.jpg", (64, 64), ("blue", "yellow")),
        ("c.webp", (33, 50), ("green", "black")),
        ("d.png", (20, 20), ("orange", "navy")),
        ("e/f.bmp", (90, 20), ("pink", "brown")),
    ):
        image = Image.new("RGB", size, colours[0])
        image.paste(colours[1], (size[0] // 4, size[1] // 3, size[0] // 2, size[1]))
        image.save(folder / name)


def environment(home: Path, **more: str) -> dict[str, str]:
    """The surroundings of a command under test: no hub, no terminal width, no own settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BLIP2CLI_", "HF_", "TRANSFORMERS_", "_BLIP2CLI"))
        and not name.startswith(("AWS_", "FSSPEC_"))
        and name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "PYTHONWARNINGS")
    }
    return kept | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | more


@pytest.fixture
def blip2cli(tmp_path: Path) -> Run:
    """Run the real command as a process, in a folder of its own, and return what came of it."""

    def run(
        *arguments: str | Path,
        cwd: Path | None = None,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *map(str, arguments)],
            cwd=cwd or tmp_path,
            env=environment(tmp_path / "hf", **(env or {})),
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Starts the real command in a fraction of a second, with the model ``tiny``."""
    from tests.torture.zygote import Zygote

    with Zygote() as ready:
        yield ready
