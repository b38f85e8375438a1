"""The command on a Ray cluster of several nodes: the bytes of one process, whatever happens."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import COMMAND, Run, environment
from tests.drawn_source import draw_source
from tests.pipeline.compute.ray_nodes import Nodes, nodes

pytestmark = [pytest.mark.external, pytest.mark.filterwarnings("default")]
RUNS = {
    "caption": ("caption", "out.jsonl"),
    "ranked": (
        *("caption", "--num-beams", "3", "--num-captions", "3", "--rank-with", "tiny-itm"),
        "out.jsonl",
    ),
    "ask": ("ask", "--question", "how many objects are there?", "out.jsonl"),
    "choices": ("ask", "--questions", "questions.txt", "--choices", "yes,no", "out.parquet"),
    "embed": ("embed", "out.parquet"),
    "pairs": ("embed", "--kind", "multimodal", "--text", "a red circle", "out.parquet"),
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(2, 1) as made:
        yield made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_source(tmp_path_factory.mktemp("ray") / "source", 40)


@pytest.mark.parametrize(
    ("task", "actors"),
    [("ranked", 1), ("ask", 2), ("choices", 2), ("embed", 3), ("pairs", 2)],
)
def test_the_bytes_of_one_process(
    task: str, actors: int, cluster: Nodes, source: Path, blip2cli: Run, tmp_path: Path
) -> None:
    *command, out = RUNS[task]
    model = "tiny-itm" if task == "pairs" else "tiny"
    (tmp_path / "questions.txt").write_text("is there a circle?\nis there a square?\n")
    files = {}
    for kind in ("one", "ray"):
        (tmp_path / kind).mkdir()
        ray = ["--ray", "--ray-address", cluster.address, "--ray-actors", actors]
        more = [*map(str, ray), "--batch-size", "4"] if kind == "ray" else []
        run = [*command, source, "--model", model, "--quiet", "-o", tmp_path / kind / out, *more]
        ended = blip2cli(*run, cwd=tmp_path)
        assert (ended.returncode, ended.stderr) == (3, "")
        files[kind] = {
            path.name: path.read_bytes()
            for path in (tmp_path / kind).iterdir()
            if not path.name.startswith(".")
        }
    assert len(files["one"]) == 2
    assert files["one"] == files["ray"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on(
    number: signal.Signals, cluster: Nodes, source: Path, blip2cli: Run, tmp_path: Path
) -> None:
    out, one = tmp_path / "out.jsonl", tmp_path / "one.jsonl"
    run = ["caption", str(source), "--model", "tiny", "--quiet", "--batch-size", "1"]
    ray = ["--ray", "--ray-address", cluster.address, "-o", str(out)]
    child = subprocess.Popen([COMMAND, *run, *ray], env=environment(tmp_path / "hf"))
    while not out.exists() or out.stat().st_size == 0:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(number)
    expected = -number if number == signal.SIGKILL else 128 + number
    assert child.wait(60) == expected
    assert blip2cli(*run, "-o", one).returncode == 3
    assert one.read_bytes().startswith(out.read_bytes())
    assert blip2cli(*run, *ray, "--resume").returncode == 3
    assert out.read_bytes() == one.read_bytes()


def test_texts_without_images_are_refused(blip2cli: Run) -> None:
    ended = blip2cli("embed", "--text", "a red circle", "--model", "tiny-itm", "--ray")
    assert ended.returncode == 2
    assert "--ray is about images, and none are read when texts are embedded" in ended.stderr
