"""Runs with several devices: the bytes of one process, whatever happens on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from blip2cli.images.load_image import LoadedImage
from blip2cli.model.checkpoint.resolve import local_checkpoint
from blip2cli.options import (
    AskOptions,
    EmbedOptions,
    LoaderOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.compute.processes import WorkerProcesses
from blip2cli.pipeline.compute.replica import ReplicaSpec
from blip2cli.pipeline.events import Event, WorkerEnded
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.sources import open_sources
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.questions import Question, Questions
from tests.command import COMMAND, Run, environment
from tests.drawn_source import draw_source
from tests.images.helpers import Crash
from tests.pipeline.helpers import CAPTION
from tests.processes import children, eventually_gone, worker_processes

# One that is written, and one that is chosen with the help of a blank image.
ASK = AskTask(
    Questions((Question("what is it?", "1"), Question("how many?", "2", ("one", "two cats")))),
    AskOptions(choice_norm="pmi", choice_scores=True),
    CAPTION.decode,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty files, a quarter of them broken."""
    return draw_source(tmp_path_factory.mktemp("source") / "images", 40)


@pytest.mark.parametrize(
    ("task", "suffix", "more"),
    [
        (CAPTION, ".jsonl", {"errors": "inline"}),
        (ASK, ".parquet", {}),
        (EmbedTask(EmbedOptions("qformer")), ".parquet", {}),
    ],
)
def test_the_output_is_that_of_one_process(
    task: Task, suffix: str, more: dict[str, Any], source: Path, tmp_path: Path
) -> None:
    written = []
    for device, batch in (("cpu", 7), ("cpu,cpu", 5)):
        out = tmp_path / f"{len(written)}{suffix}"
        options = RunOptions(
            SourceOptions((str(source),)),
            ModelOptions("tiny", device=device),
            LoaderOptions(batch_size=batch),
            OutputOptions(str(out), **more),
        )
        summary = run(Job(ImageItems(), task, options))
        errors = out.with_name(out.name + ".errors")
        written.append((summary.done, out.read_bytes(), errors.exists() and errors.read_bytes()))
    assert written[0] == written[1]
    assert not worker_processes()


COMMON = ("--model", "tiny", "--batch-size", "2", "--max-new-tokens", "6", "-o", "out.jsonl")


def start(source: Path, device: str, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, "caption", str(source), *COMMON, "--device", device, *flags],
        cwd=source.parent,
        env=environment(source.parent / "hf"),
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests may ignore SIGINT, as a shell does for its background jobs.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for_rows(process: subprocess.Popen[str], out: Path, beyond: int) -> None:
    deadline = time.monotonic() + 120
    while not out.exists() or out.stat().st_size <= beyond:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)


@pytest.mark.external
def test_kills_and_interrupts_leave_nothing_and_lose_nothing(tmp_path: Path, called: Run) -> None:
    source = draw_source(tmp_path / "source", 150)
    out = tmp_path / "out.jsonl"
    process = start(source, "cpu,cpu", "--workers", "1", "-v")
    wait_for_rows(process, out, 0)
    os.kill(min(children(process.pid)), signal.SIGKILL)
    wait_for_rows(process, out, out.stat().st_size)
    family: set[int] = set()
    while len(family) < 3:  # with a process that decodes; the killed one takes a while to be back
        assert process.poll() is None
        family = children(process.pid)
        family |= {each for worker in family for each in children(worker)}
    process.kill()
    assert "The worker on cpu" in (process.communicate()[1])
    assert eventually_gone(family, 2)

    process = start(source, "cpu,cpu", "--resume")
    wait_for_rows(process, out, out.stat().st_size)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 130, said
    assert "Interrupted; the rows that were finished are safe." in said

    done = called("caption", source, *COMMON, "--device", "cpu", "--resume")
    assert done.returncode == 3, done.stderr
    resumed = out.read_bytes(), out.with_name("out.jsonl.errors").read_bytes()
    again = called("caption", source, *COMMON, "--device", "cpu", "--overwrite")
    assert again.returncode == 3, again.stderr
    assert resumed == (out.read_bytes(), out.with_name("out.jsonl.errors").read_bytes())


def test_an_image_that_crashes_the_decoder_ends_one_worker_only(source: Path) -> None:
    tiny = ModelOptions("tiny", device="cpu")
    spec = ReplicaSpec(tiny, LoaderOptions(4), CAPTION, local_checkpoint(tiny))
    images = list(open_sources(SourceOptions((str(source),), limit=12)))
    refs = [*images[:6], Crash("crash.png", "/crash.png"), *images[6:]]
    events: list[Event] = []
    seen: list[LoadedImage] = []
    with WorkerProcesses(spec, ["cpu", "cpu"], iter(refs), events.append, 600) as compute:
        compute.start()
        compute.load()
        while (batch := compute.next_batch()) is not None:
            compute.put(batch)
        while (done := compute.take(True)) is not None:
            seen += done.images
    assert [image.file_name for image in seen] == [ref.file_name for ref in refs]
    crashed = [
        image.error and image.error.error_type for image in seen if image.file_name == "crash.png"
    ]
    assert crashed == ["decoder_crashed"]
    assert len([event for event in events if isinstance(event, WorkerEnded)]) == 1


SCRIPT = """
import sys
from blip2cli.cli.app import call
code = call(sys.argv[1:])
print(code, "torch" in sys.modules)
"""


def test_the_main_process_does_without_torch(images: Path, tmp_path: Path) -> None:
    command = ["caption", images, "--model", "tiny", "--device", "cpu,cpu", "-v", "-o", "o.parquet"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, command)],
        cwd=tmp_path,
        env=environment(tmp_path / "hf"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "0 False\n", done.stderr
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("cpu (2): ")]
    assert any("tiny on cpu, cpu in float32" in line for line in lines)
