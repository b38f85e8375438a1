"""Pixels go to a pretended GPU while the batch before is decoded, and nothing is lost by it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from blip2cli.images.batch_stream import BatchStream
from blip2cli.images.batches import LoadedBatch
from blip2cli.images.load_image import LoadedImage
from blip2cli.model.checkpoint.resolve import local_checkpoint
from blip2cli.model.vision.upload import Upload
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    DecodeOptions,
    LoaderOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.compute import this_process
from blip2cli.pipeline.compute.replica import Replica, ReplicaSpec
from blip2cli.pipeline.compute.send import send
from blip2cli.pipeline.events import Event, Listener, Progress, Summary
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.sources import open_sources
from blip2cli.tasks.caption import CaptionTask
from tests.command import environment
from tests.images.helpers import until
from tests.images.pictures import draw_images
from tests.pretend import Machine, pretended, what_is_missing

MISSING = what_is_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

ROOT = Path(__file__).parents[3]
TASK = CaptionTask(decode=DecodeOptions(max_new_tokens=3))
BATCHES = 3  # of the five images of a folder, two each


def batch(count: int, seed: int = 0) -> LoadedBatch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return LoadedBatch(tuple(LoadedImage(f"{n}", 8, 8) for n in range(count)), pixels)


def job(folder: Path, out: Path, device: str, **output: Any) -> Job[CaptionTask]:
    model = ModelOptions("tiny", device=device, dtype="float32")
    options = RunOptions(
        source=SourceOptions((str(folder),)),
        model=model,
        loader=LoaderOptions(batch_size=2, workers=0),
        output=OutputOptions(str(out), **output),
    )
    return Job(ImageItems(), TASK, options, checkpoint=local_checkpoint(model))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    draw_images(folder)
    return folder


@dataclass
class Gpu:
    machine: Machine
    model: Blip2


@pytest.fixture(scope="module")
def shared_gpu() -> Iterator[Gpu]:
    with pretended() as machine:
        yield Gpu(machine, Blip2.load(ModelOptions("tiny", device="cuda", dtype="float32")))


@pytest.fixture
def gpu(shared_gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """With a model in its memory that runs take."""
    monkeypatch.setattr(this_process, "load_model", lambda *_: shared_gpu.model)
    yield shared_gpu
    assert shared_gpu.machine.errors == []
    assert until(lambda: "hand over" not in [thread.name for thread in threading.enumerate()])


@pytest.fixture(scope="module")
def expected(shared_gpu: Gpu, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The rows of an unbroken run, each batch sent when it is computed."""
    out = tmp_path_factory.mktemp("unbroken") / "out.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(this_process, "load_model", lambda *_: shared_gpu.model)
        patch.setattr(BatchStream, "hand_over", lambda stream, send: None)
        assert run(job(folder, out, "cuda")).done == 5
    return out.read_bytes()


@pytest.fixture
def senders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that started a copy of pixels, in order."""
    names: list[str] = []
    start = Upload.start

    def noted(upload: Upload, *tensors: Tensor) -> Any:
        started = start(upload, *tensors)
        names.append(threading.current_thread().name)
        return started

    monkeypatch.setattr(Upload, "start", noted)
    return names


def test_who_computes_waits_for_its_own_pixels_only() -> None:
    first, second = batch(4), batch(3, seed=1)
    with pretended() as machine, ThreadPoolExecutor(1) as thread:
        upload = Upload(torch.device("cuda", 0))
        arriving = [thread.submit(send, upload, each).result() for each in (first, second)]
        computing = machine.stream().clock
        copied = []
        for sent, its in zip((first, second), arriving, strict=True):
            copied.append(computing.get(upload._stream.number, 0))
            found = its()
            assert torch.equal(found.pixels.cpu(), sent.pixels)
            assert found.items == sent.items
        assert copied == [0, 1]
        assert machine.errors == []


def test_a_batch_without_pixels_is_not_sent() -> None:
    with pretended() as machine:
        failed = batch(0)
        assert send(Upload(torch.device("cuda", 0)), failed)() is failed
        assert machine.kernels["to device"] == 0


def test_pinned_memory_that_is_written_to_too_early_would_be_noticed() -> None:
    class Hasty(Upload):
        def start(self, host: Tensor) -> tuple[Tensor, Any]:
            self._copied = None  # nothing to wait for
            return super().start(host)

    with pretended() as machine:
        for kind, errors in ((Upload, 0), (Hasty, 1)):
            upload = kind(torch.device("cuda", 0))
            waiting = [send(upload, batch(2, seed)) for seed in range(2)]
            assert len(machine.errors) == errors
            del waiting
        assert "pinned memory that is being copied" in machine.errors[0]


def test_pixels_that_are_read_before_they_arrive_would_be_noticed() -> None:
    with pretended() as machine:
        uploaded, _ = Upload(torch.device("cuda", 0)).start(batch(2).pixels)
        uploaded.float()
        assert "uses what stream" in machine.errors[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_batch_is_sent_while_one_is_decoded(
    workers: int,
    gpu: Gpu,
    folder: Path,
    tmp_path: Path,
    expected: bytes,
    senders: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generate, generating = Blip2.generate, []

    def generated(model: Blip2, *arguments: Any) -> Any:
        generating.append(len(generating) + 1)
        # If nobody but this thread sent pixels, those of the next batch would not come.
        assert until(lambda: len(senders) == min(generating[-1] + 1, BATCHES))
        return generate(model, *arguments)

    monkeypatch.setattr(Blip2, "generate", generated)
    work = job(folder, tmp_path / "out.jsonl", "cuda")
    loader = replace(work.options.loader, workers=workers)
    assert run(replace(work, options=replace(work.options, loader=loader))).done == 5
    assert (tmp_path / "out.jsonl").read_bytes() == expected
    assert generating == [1, 2, 3]
    assert senders == ["hand over"] * BATCHES


def test_pixels_that_find_no_memory_are_sent_in_their_turn(
    gpu: Gpu, folder: Path, tmp_path: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Upload.start
    refused: list[int] = []

    def short(upload: Upload, host: Tensor) -> Any:
        if threading.current_thread().name == "hand over":
            refused.append(len(host))
            raise torch.OutOfMemoryError("CUDA out of memory. (pretended)")
        return start(upload, host)

    monkeypatch.setattr(Upload, "start", short)
    assert run(job(folder, tmp_path / "out.jsonl", "cuda")).done == 5
    assert (tmp_path / "out.jsonl").read_bytes() == expected
    assert refused == [2, 2, 1]


class Stopper:
    """Does something when the rows of the first batch are written and the next one is sent."""

    def __init__(self, senders: list[str], stop: Any) -> None:
        self.senders, self.stop = senders, stop

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and event.done == 2:
            assert until(lambda: len(self.senders) == 2)
            self.stop()


def resumed(folder: Path, out: Path, on_event: Listener = lambda event: None) -> Summary:
    return run(job(folder, out, "cuda", resume=True), on_event)


def test_an_interrupt_drops_what_is_sent_and_a_resume_makes_it_good(
    gpu: Gpu, folder: Path, tmp_path: Path, expected: bytes, senders: list[str]
) -> None:
    out = tmp_path / "out.jsonl"
    interrupt = Stopper(senders, lambda: signal.raise_signal(signal.SIGINT))
    summary = run(job(folder, out, "cuda"), interrupt)
    assert (summary.exit_code, summary.done) == (130, 2)
    assert expected.startswith(out.read_bytes())
    summary = resumed(folder, out)
    assert (summary.exit_code, summary.done, summary.already) == (0, 3, 2)
    assert out.read_bytes() == expected


def test_a_replica_sends_what_it_has_decoded(
    gpu: Gpu,
    folder: Path,
    expected: bytes,
    senders: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ModelOptions("tiny", device="cuda", dtype="float32")
    spec = ReplicaSpec(options, LoaderOptions(2, 0), TASK, local_checkpoint(options))
    monkeypatch.setattr("blip2cli.pipeline.compute.replica.load_model", lambda *_: gpu.model)
    replica = spec.start()
    assert isinstance(replica, Replica)
    refs = list(open_sources(SourceOptions((str(folder),))))
    with ThreadPoolExecutor(1, "serve") as other:
        later = other.submit(replica.process, refs[2:])
        rows = replica.process(refs[:2]).rows + later.result().rows
    replica.close()
    assert len(senders) == 2
    captions = [json.loads(line)["caption"] for line in expected.splitlines()]
    assert [row["caption"] for row in rows] == captions


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.pipeline.compute.test_send import Stopper, job, run
from tests.pretend import pretended
from blip2cli.model.vision.upload import Upload

sent, start = [], Upload.start

def noted(upload, host):
    started = start(upload, host)
    sent.append(len(host))
    return started

Upload.start = noted
kill = Stopper(sent, lambda: os.kill(os.getpid(), signal.SIGKILL))
with pretended():
    run(job(Path(sys.argv[1]), Path(sys.argv[2]), "cuda"), kill)
"""


@pytest.mark.external
def test_a_kill_while_a_batch_is_sent_loses_nothing(
    gpu: Gpu, folder: Path, tmp_path: Path, expected: bytes
) -> None:
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", KILLED, str(folder), str(out)]
    done = subprocess.run(
        command, env=environment(tmp_path, PYTHONPATH=str(ROOT)), cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert expected.startswith(out.read_bytes())
    summary = resumed(folder, out)
    assert (summary.done + summary.already, summary.exit_code) == (5, 0)
    assert out.read_bytes() == expected
