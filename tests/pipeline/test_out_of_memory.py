"""Batches that do not fit into memory: halved, announced once, and the rows stay the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2cli.images.batch_stream import BatchStream, LoadedBatch
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    DecodeOptions,
    LoaderOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.events import Event, Failed, Halved
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.out_of_memory import BatchHalving
from blip2cli.pipeline.run import run
from blip2cli.sources import open_sources
from blip2cli.system.memory import is_exhaustion
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.embed import EmbedTask
from tests.command import environment
from tests.memory_limited_model import MemoryLimitedModel

CAPTION = CaptionTask(decode=DecodeOptions(max_new_tokens=6))


@pytest.fixture
def batch(mixed: Path, model: Blip2) -> LoadedBatch:
    """Five good images and, second, a failure."""
    refs = open_sources(SourceOptions((str(mixed),)))
    (batch,) = BatchStream(refs, model.spec, LoaderOptions(batch_size=16, workers=0))
    return batch


@pytest.mark.parametrize(
    ("room", "tried", "again", "size"),
    [
        (5, [5], [5], None),
        (4, [5, 3, 2], [3, 2], 3),
        (2, [5, 3, 2, 1, 2], [2, 2, 1], 2),
        (1, [5, 3, 2, 1, 1, 1, 2, 1, 1], [1] * 5, 1),
    ],
)
def test_a_batch_is_halved_until_it_fits_and_the_size_remembered(
    room: int, tried: list[int], again: list[int], size: int | None, model: Blip2, batch: Any
) -> None:
    hungry: Any = MemoryLimitedModel(model, room)
    events: list[Event] = []
    halving = BatchHalving(CAPTION, events.append)
    expected = CAPTION.rows(model, batch)
    for tries in (tried, again):
        hungry.tried.clear()
        processed = halving.process(hungry, batch)
        assert hungry.tried == tries
        assert processed.rows == expected  # log-probabilities to the last of their six decimals
        assert tuple(processed.images) == batch.items
        assert processed.done == 5
    assert halving.size == size
    assert events == ([] if size is None else [Halved(size)])  # once


def test_vectors_are_the_same_bits(model: Blip2, batch: LoadedBatch) -> None:
    task = EmbedTask().fit(model)
    limited: Any = MemoryLimitedModel(model, 2)
    rows = BatchHalving(task).process(limited, batch).rows
    expected = task.rows(model, batch)
    assert [row["embedding"].tobytes() for row in rows] == [  # type: ignore[attr-defined]
        row["embedding"].tobytes()  # type: ignore[attr-defined]
        for row in expected
    ]


def test_an_image_that_does_not_fit_by_itself_fails_by_itself(
    model: Blip2, batch: LoadedBatch
) -> None:
    class Glutton(MemoryLimitedModel):
        def features(self, pixels: torch.Tensor) -> Any:
            if any(torch.equal(image, batch.pixels[2]) for image in pixels):
                torch.empty(1 << 60, dtype=torch.uint8)
            return super().features(pixels)

    halving = BatchHalving(CAPTION)
    processed = halving.process(Glutton(model, 9), batch)  # type: ignore[arg-type]
    names = ["a.png", "b-broken.jpg", "b.jpg", "c.webp", "d.png", "e/f.bmp"]
    assert [item.file_name for item in processed.images] == names
    errors = {item.file_name: item.error.error_type for item in processed.images if item.error}
    assert errors == {"b-broken.jpg": "not_an_image", "c.webp": "out_of_memory"}
    expected = [r for r in CAPTION.rows(model, batch) if r["file_name"] != "c.webp"]
    assert processed.rows == expected
    assert processed.done == 4
    assert halving.size == 2  # what fitted, not what the one image came down to


def test_a_run_goes_on_and_notes_what_did_not_fit(
    mixed: Path, tmp_path: Path, model: Blip2
) -> None:
    hungry: Any = MemoryLimitedModel(model, 0)
    events: list[Event] = []
    out = tmp_path / "out.jsonl"
    options = RunOptions(
        SourceOptions((str(mixed),)),
        loader=LoaderOptions(batch_size=2, workers=0),
        output=OutputOptions(str(out)),
    )
    summary = run(Job(ImageItems(), CAPTION, options, load=lambda _: hungry), events.append)
    assert (summary.done, summary.failed, summary.exit_code) == (0, 6, 3)
    noted = [json.loads(line) for line in (tmp_path / "out.jsonl.errors").read_text().splitlines()]
    kinds = [entry["error_type"] for entry in noted]
    assert kinds == ["out_of_memory", "not_an_image", *["out_of_memory"] * 4]
    assert [event for event in events if isinstance(event, Halved)] == [Halved(1)]
    assert len([event for event in events if isinstance(event, Failed)]) == 6


def test_other_errors_are_let_through(model: Blip2, batch: LoadedBatch) -> None:
    class Faulty(MemoryLimitedModel):
        def features(self, pixels: torch.Tensor) -> Any:
            raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        BatchHalving(CAPTION).process(Faulty(model, 9), batch)  # type: ignore[arg-type]


def test_what_counts_as_exhaustion() -> None:
    with pytest.raises(RuntimeError) as allocator:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_exhaustion(allocator.value)
    with pytest.raises(MemoryError) as python:
        bytearray(1 << 62)
    assert is_exhaustion(python.value)
    assert is_exhaustion(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."))
    assert is_exhaustion(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling …"))
    assert not is_exhaustion(RuntimeError("shapes cannot be multiplied"))
    assert not is_exhaustion(ValueError("out of memory"))


# Eight images of tiny, each asking the real allocator for memory of its own, in a process whose
# address space holds four of them beside everything else.
SCRIPT = """
import json, resource, sys
import torch
from blip2cli.images.batch_stream import BatchStream
from blip2cli.model.wrapper import Blip2
from blip2cli.options import LoaderOptions, ModelOptions, SourceOptions
from blip2cli.sources import open_sources
from blip2cli.tasks.caption import CaptionTask
from blip2cli.pipeline.out_of_memory import BatchHalving

STEP = 128 << 20

class Greedy:
    def __init__(self, model):
        self.model, self.tried = model, []
    def __getattr__(self, name):
        return getattr(self.model, name)
    def features(self, pixels):
        self.tried.append(len(pixels))
        workspace = torch.empty(len(pixels) * STEP, dtype=torch.uint8)  # never touched
        return self.model.features(pixels)

greedy = Greedy(Blip2.load(ModelOptions("tiny", device="cpu", dtype="float32")))
refs = open_sources(SourceOptions((sys.argv[1],), limit=8))
(batch,) = BatchStream(refs, greedy.spec, LoaderOptions(8, 0))
task, events = CaptionTask(), []
free = BatchHalving(task, events.append).process(greedy, batch).rows
assert greedy.tried == [8] and not events
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 4 * STEP + STEP // 2, resource.RLIM_INFINITY))
halving = BatchHalving(task, events.append)
tight = [halving.process(greedy, batch).rows for _ in range(2)]
print(json.dumps({"free": free, "tight": tight, "tried": greedy.tried, "events": repr(events)}))
"""


def test_rows_of_tiny_in_too_little_memory(tmp_path: Path) -> None:
    samples = Path(__file__).parents[2] / "sample_images"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(samples)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["tried"] == [8, 8, 4, 4, 4, 4]
    assert found["events"] == "[Halved(batch_size=4, device=None)]"
    assert [row["file_name"] for row in found["free"]][:2] == ["breakfast.jpg", "cats.png"]
    assert found["tight"] == [found["free"]] * 2
