"""Pixels on their way to a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from blip2cli.model.vision.upload import Upload

CPU = torch.device("cpu")


class Device:
    """Notes what it is told, as ``torch.cuda`` with one stream beside the one that computes."""

    type = "cuda"

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def Stream(self, device: object) -> Stream:  # noqa: N802 - torch's name
        return Stream("copying", self.told)

    def current_stream(self, device: object) -> Stream:
        return Stream("computing", self.told)

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self.told.append(f"on {stream.name}")
        yield
        self.told.append("on computing")


class Stream:
    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told, self.count = name, told, 0

    def record_event(self) -> Event:
        self.count += 1
        self.told.append(f"{self.name} marks {self.count}")
        return Event(self.count, self.told)

    def wait_event(self, event: Event) -> None:
        self.told.append(f"{self.name} waits for {event.number}")


class Event:
    def __init__(self, number: int, told: list[str]) -> None:
        self.number, self.told = number, told

    def synchronize(self) -> None:
        self.told.append(f"host waits for {self.number}")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a device is told; tensors made for it are made on the CPU."""
    told: list[str] = []
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda like, device: empty_like(like))
    monkeypatch.setattr(
        Tensor, "record_stream", lambda pixels, stream: told.append(f"{stream.name} has it")
    )
    copy = Tensor.copy_

    def noted(into: Tensor, origin: Tensor, non_blocking: bool = False) -> Tensor:
        told.append("copied to the device" if non_blocking else "copied into the buffer")
        return copy(into, origin, non_blocking)

    monkeypatch.setattr(Tensor, "copy_", noted)
    return told


class Pinned(Upload):
    """Its buffers are pinned in name only, and counted."""

    def __init__(self, device: Any) -> None:
        super().__init__(device, device)
        self.made: list[int] = []

    def _pinned(self, size: int, dtype: torch.dtype) -> Tensor:
        self.made.append(size)
        return torch.empty(size, dtype=dtype)


def pixels(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=generator)


def test_on_a_cpu_nothing_is_copied() -> None:
    batch = pixels(3)
    assert Upload(CPU)(batch) is batch


def test_batches_go_through_one_buffer(told: list[str]) -> None:
    upload = Pinned(Device(told))
    batches = [pixels(count) for count in (8, 8, 3, 8)]
    sent = [upload(batch) for batch in batches]
    for batch, there in zip(batches, sent, strict=True):
        assert torch.equal(batch, there)
    assert upload.made == [8 * 48]
    upload(pixels(9))
    assert upload.made == [8 * 48, 9 * 48]


def test_copies_wait_for_one_another_and_computing_for_them(told: list[str]) -> None:
    upload = Pinned(Device(told))
    upload(pixels(4))
    once = [
        "copied into the buffer",
        "on copying",
        "copied to the device",
        "copying marks 1",
        "on computing",
        "computing waits for 1",
        "computing has it",
    ]
    assert told == once
    del told[:]
    upload(pixels(4))
    # The buffer is written to only when the device has what was in it.
    assert told == ["host waits for 1", *(line.replace("1", "2") for line in once)]
