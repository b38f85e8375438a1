"""A replica of the model: references in, rows without pixels out."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blip2cli.model.checkpoint.resolve import local_checkpoint
from blip2cli.options import EmbedOptions, LoaderOptions, ModelOptions, SourceOptions
from blip2cli.pipeline.compute.base import describe
from blip2cli.pipeline.compute.decoder import Decoder
from blip2cli.pipeline.compute.replica import Replica, ReplicaSpec
from blip2cli.pipeline.events import Halved
from blip2cli.sources import ImageRef, open_sources
from blip2cli.tasks.embed import EmbedTask
from tests.images.helpers import SPEC, Crash, made
from tests.memory_limited_model import MemoryLimitedModel
from tests.pipeline.helpers import CAPTION


@pytest.fixture(scope="module")
def spec() -> ReplicaSpec:
    tiny = ModelOptions("tiny", device="cpu")
    return ReplicaSpec(tiny, LoaderOptions(workers=0), CAPTION, local_checkpoint(tiny), sharers=2)


@pytest.fixture(scope="module")
def replica(spec: ReplicaSpec) -> Iterator[Replica]:
    made_elsewhere: ReplicaSpec = pickle.loads(pickle.dumps(spec))
    replica = made_elsewhere.start()
    yield replica
    replica.close()


def refs(folder: Path) -> list[ImageRef]:
    return list(open_sources(SourceOptions((str(folder),))))


def test_it_says_what_it_is(replica: Replica, spec: ReplicaSpec) -> None:
    ready = pickle.loads(pickle.dumps(replica.ready))
    assert (ready.name, ready.device, ready.dtype) == ("tiny", "cpu", "float32")
    assert "asked for" in ready.reason
    assert ready.batch_size == 64
    assert ready.threads is None  # in float32 no bit depends on it
    task = describe(replica.model, EmbedTask(EmbedOptions("qformer"))).task
    assert task.size == task.fit(replica.model).size  # the columns are complete


def test_rows_come_with_failures_and_can_be_sent(replica: Replica, mixed: Path) -> None:
    processed = replica.process(refs(mixed))
    isolated = replica.process(refs(mixed), isolate=True)
    assert processed.rows == isolated.rows
    assert [row["file_name"] for row in processed.rows] == [
        image.file_name for image in processed.images if image.error is None
    ]
    assert [image.file_name for image in processed.images if image.error] == ["b-broken.jpg"]
    assert processed.done == 5
    assert 0 < processed.load_share < 1
    assert len(pickle.dumps(processed)) < 5_000  # no pixels


def test_an_image_that_crashes_the_decoder_fails_where_that_is_isolated(
    replica: Replica, images: Path
) -> None:
    good = refs(images)
    crash = Crash("crash.png", "/crash.png")
    processed = replica.process([*good[:2], crash, *good[2:]], isolate=True)
    (failed,) = (image for image in processed.images if image.error is not None)
    assert (failed.file_name, failed.error.error_type) == ("crash.png", "decoder_crashed")
    assert processed.rows == replica.process(good).rows


def test_memory_that_runs_out_halves_the_batches_of_this_device(
    replica: Replica, images: Path
) -> None:
    model: Any = MemoryLimitedModel(replica.model, 3)
    smaller = Replica(replica.spec, model, replica.ready)
    processed = smaller.process(refs(images))
    assert processed.rows == replica.process(refs(images)).rows
    assert processed.events == (Halved(3, "cpu"),)
    assert smaller.process(refs(images)).events == ()  # said once


def test_workers_share_the_images_of_a_batch() -> None:
    some = [made(number) for number in range(20)]
    whole = Decoder(SPEC, LoaderOptions(workers=0)).load(some)
    decoder = Decoder(SPEC, LoaderOptions(workers=2))
    for _ in range(2):
        shared = decoder.load(some)
        assert shared.items == whole.items
        assert shared.pixels.equal(whole.pixels)
    decoder.close()


def test_the_precision_can_be_given(spec: ReplicaSpec) -> None:
    given = replace(spec, model=replace(spec.model, dtype="bfloat16"), threads=1)
    replica = given.start()
    assert replica.ready.dtype == "bfloat16"
