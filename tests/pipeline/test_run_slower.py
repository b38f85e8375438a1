"""A run that can't have its steps recorded goes on without, and says so once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.model.decoding.cuda_graphs import CudaGraphCache
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, LoaderOptions, OutputOptions, RunOptions, SourceOptions
from blip2cli.pipeline.events import Event, Slower
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.tasks.caption import CaptionTask
from tests.model.tape import TapeCapture

CAPTION = CaptionTask(decode=DecodeOptions(max_new_tokens=6))


class Refuses(TapeCapture):
    """A device on which nothing can be captured."""

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize("record", [Refuses(), TapeCapture()], ids=["refused", "recorded"])
def test_rows_are_the_same(
    record: TapeCapture, images: Path, tmp_path: Path, model: Blip2, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []

    def rows(name: str) -> bytes:
        options = RunOptions(
            source=SourceOptions((str(images),)),
            loader=LoaderOptions(batch_size=1, workers=0),
            output=OutputOptions(str(tmp_path / name)),
        )
        assert (
            run(Job(ImageItems(), CAPTION, options, load=lambda _: model), events.append).done > 2
        )
        return (tmp_path / name).read_bytes()

    expected = rows("plain.jsonl")
    monkeypatch.setattr(model, "_graphs", CudaGraphCache(record))
    assert rows("recorded.jsonl") == expected
    reasons = [event.reason for event in events if isinstance(event, Slower)]
    if not isinstance(record, Refuses):
        assert reasons == []
        assert sum(record.played) > 2
    else:
        (reason,) = reasons
        assert reason == (
            "decode steps run without CUDA graphs "
            "(RuntimeError: operation not permitted when stream is capturing)"
        )
