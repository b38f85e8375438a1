"""Sources and models that another machine of a Ray cluster does not see."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import Run
from tests.drawn_source import draw_source
from tests.pipeline.compute.ray_nodes import Nodes, nodes

pytestmark = [pytest.mark.external, pytest.mark.filterwarnings("default")]
RAY_START = (sys.executable, "-m", "ray.scripts.scripts", "start")


def masks_allowed() -> bool:
    """Whether this user may mount something where only some processes see it."""
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_source(tmp_path_factory.mktemp("masked") / "source", 8)


@pytest.fixture(scope="module")
def cluster(source: Path) -> Iterator[Nodes]:
    """Two machines, of which the second has nothing at the place of the source."""
    if not masks_allowed():
        pytest.skip("mount namespaces are not allowed here")
    with nodes(1) as made:
        start = [*RAY_START, f"--address={made.address}", "--num-cpus=1", "--block"]
        script = (
            f"mount -t tmpfs none {shlex.quote(str(source.parent))} && exec {shlex.join(start)}"
        )
        node = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 60
            while len(made.cluster.global_state._live_node_ids()) < 3:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield made
        finally:
            node.terminate()
            node.wait(30)


def listed(source: Path) -> Path:
    """A manifest elsewhere that names the images."""
    manifest = source.parent.parent / "list.txt"
    manifest.write_text("".join(f"{path}\n" for path in sorted(source.rglob("*.png"))))
    return manifest


def test_a_folder_that_a_machine_does_not_see(
    cluster: Nodes, source: Path, blip2cli: Run, tmp_path: Path
) -> None:
    ray = ["--ray", "--ray-address", cluster.address, "-o", tmp_path / "out.jsonl"]
    for images in (source, listed(source)):
        ended = blip2cli("caption", images, "--absolute-paths", "--model", "tiny", *ray)
        assert ended.returncode == 2
        assert "of the Ray cluster does not see" in ended.stderr
        assert str(source) in ended.stderr
        assert "use a folder that all nodes share" in ended.stderr
        assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_what_all_machines_see_is_taken(cluster: Nodes, blip2cli: Run, tmp_path: Path) -> None:
    elsewhere = draw_source(tmp_path / "elsewhere", 8)
    ray = ["--ray", "--ray-address", cluster.address, "--batch-size", "1"]
    run = ["caption", elsewhere, "--model", "tiny", "-q"]
    assert blip2cli(*run, *ray, "-o", tmp_path / "ray.jsonl").returncode == 3
    assert blip2cli(*run, "-o", tmp_path / "one.jsonl").returncode == 3
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
