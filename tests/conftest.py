"""What tests of several rooms share: a small random model, a few images, the command."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

import blip2cli.cli
from tests.command import COMMAND, Run, environment
from tests.images.pictures import draw_images
from tests.s3_server import S3, serve_s3
from tests.slow import SLOW_FILES
from tests.store_proxy import StoreProxy, proxy_of

# The command sets it for its own child processes; scripts that tests start import their neighbours.
os.environ.pop("PYTHONSAFEPATH", None)
assert blip2cli.cli
# Two processes share two cores: threads that spin keep others waiting. libgomp reads it when torch
# is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# A busy machine may take any time for one example.
settings.register_profile("blip2cli", deadline=None)
settings.load_profile("blip2cli")

if TYPE_CHECKING:
    from blip2cli.model.wrapper import Blip2
    from tests.fork_server import ForkServer


gc.disable()  # while modules of tests are imported, which stay


def pytest_collection_finish() -> None:
    """Collect cycles again, but never look at what was imported."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow files, and put them first: at the end processes have equal work."""
    for item in items:
        if item.path.relative_to(Path(__file__).parent).as_posix() in SLOW_FILES:
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


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


@pytest.fixture(scope="session")
def proxy(s3: S3) -> Iterator[StoreProxy]:
    """A proxy before that server, which does what ``bucket`` tells it to."""
    with proxy_of(s3.url) as proxy:
        yield proxy


_buckets = itertools.count()


@pytest.fixture
def bucket(s3: S3, proxy: StoreProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new bucket, reached through the proxy, whose faults end with the test."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # s3fs repeats requests all the same
    name = f"objects-{next(_buckets)}"
    s3.bucket(name, {})
    proxy.requests.clear()
    yield f"s3://{name}"
    proxy.rule = lambda method, path: None


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder of five good images and, second in order, one that is none."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    draw_images(folder)
    (folder / "b-broken.jpg").write_text("this is no picture")
    return folder


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


@pytest.fixture
def called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Run the command in this process, which has torch already, and return what came of it."""
    from blip2cli.cli.app import call

    monkeypatch.chdir(tmp_path)

    def run(
        *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            code = call([*map(str, arguments)])
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Starts the real command in a fraction of a second, with the model ``tiny``."""
    from tests.fork_server import ForkServer

    with ForkServer() as ready:
        yield ready
