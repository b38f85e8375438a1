"""Mistakes planted into what meets CUDA, each of which the pretended device should notice.

A mistake is a change of one piece of source. It is noticed when texts change, when the run or the
device has an error, when steps are no longer replayed, or when the host waits more often.
"""

from __future__ import annotations
import __future__

import gc
import inspect
import textwrap
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from blip2cli.api import Blip2
from blip2cli.model.decoding import async_copy, cuda_capture, cuda_graphs, pipelined_decode
from blip2cli.model.families.opt import kv_slots
from blip2cli.model.vision import upload
from tests.model.device_tasks import IMAGES
from tests.pretend import pretended, what_is_missing

MISSING = what_is_missing()
pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]


@dataclass(frozen=True)
class Mistake:
    """Source to be replaced in a method, or in a function of a module."""

    owner: Any
    name: str
    right: str
    wrong: str
    module: Any

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = getattr(self.owner, self.name)
        source = textwrap.dedent(inspect.getsource(real))
        assert source.count(self.right) == 1, f"{self.name} has changed: plant it again"
        names = dict(vars(self.module))
        changed = source.replace(self.right, self.wrong)
        flags = __future__.annotations.compiler_flag
        exec(compile(changed, inspect.getfile(real), "exec", flags), names)
        monkeypatch.setattr(self.owner, self.name, names[self.name])


def of(module: Any, owner: Any, name: str, right: str, wrong: str) -> Mistake:
    return Mistake(owner, name, right, wrong, module)


_upload = upload.Upload
_pipelined = pipelined_decode.PipelinedScheduler
_slots = kv_slots.OptSlots
_capture = cuda_capture.CudaGraphCapture
MISTAKES = {
    "the stream that computes does not wait for pixels": of(
        upload, _upload, "wait", "computing.wait_event(copied)", "pass"
    ),
    "pixels are freed while they are read": of(
        upload, _upload, "wait", "uploaded.record_stream(computing)", "pass"
    ),
    "the buffer is filled while it is copied": of(
        upload, _upload, "start", "self._copied.synchronize()", "pass"
    ),
    "the buffer is not pinned": of(
        upload, _upload, "_pinned", "pin_memory=True", "pin_memory=False"
    ),
    "tokens are read before they are there": of(
        async_copy, async_copy.AsyncCopy, "values", "self._copied.synchronize()", "pass"
    ),
    "numbers are sent from memory that is not pinned": of(
        async_copy, async_copy, "send", "pin_memory=True", "pin_memory=False"
    ),
    "places of tokens stay on the host": of(
        pipelined_decode,
        _pipelined,
        "_set_tokens",
        "to_device((slots, tokens), self.next_tokens.device)",
        "torch.tensor((slots, tokens))",
    ),
    "tokens that are still being read are written to": of(
        pipelined_decode,
        _pipelined,
        "_set_tokens",
        "self.next_tokens = self.next_tokens.index_copy(",
        "self.next_tokens.index_copy_(",
    ),
    "numbers of slots of the host": of(
        kv_slots, _slots, "decode_step", "self._numbers[: len(used)]", "torch.arange(len(used))"
    ),
    "a step asks for a number": of(
        kv_slots,
        _slots,
        "decode_step",
        "decoder = self.session.decoder",
        "decoder = self.session.decoder; int(self.used.max())",
    ),
    "a step reads the images of its batch": of(
        kv_slots,
        _slots,
        "decode_step",
        "used)[:, None]",
        "used)[:, None] + 0 * self.session.images[0, 0]",
    ),
    "positions are not counted in place": of(
        kv_slots,
        _slots,
        "decode_step",
        "used.add_(1).clamp_(max=self.shape.capacity - 1)",
        "self._used[0] = (used + 1).clamp(max=self.shape.capacity - 1)",
    ),
    "a capture on the stream that computes": of(
        cuda_capture,
        _capture,
        "_own_stream",
        "self._stream or torch.cuda.Stream()",
        "self._stream or current",
    ),
    "the first run is not waited for": of(
        cuda_capture, _capture, "_own_stream", "current.wait_stream(stream)", "pass"
    ),
    "the first run does not wait": of(
        cuda_capture, _capture, "_own_stream", "stream.wait_stream(current)", "pass"
    ),
    "logits stay in the memory of a graph": of(
        cuda_graphs,
        cuda_graphs.CachedSlots,
        "_captured_step",
        "logits.copy_(slots.decode_step(fed))",
        "stable.logits = slots.decode_step(fed)",
    ),
}
# By mistake: why it does no harm, so that there is nothing to notice.
UNNOTICED = {
    "the buffer is filled while it is copied": "the host has read texts of those pixels by then",
    "tokens that are still being read are written to": "both are work of one stream, in order",
}


def captions(model: Blip2) -> list[str]:
    return [row["caption"] for row in model.caption(IMAGES, max_new_tokens=8)]


@cache
def expected() -> list[str]:
    return captions(Blip2.load("tiny", device="cpu", dtype="float32", batch_size=4))


def run() -> tuple[list[str], int]:
    """What is wrong with three rounds of captions, and how often the host waits in them."""
    right = expected()
    with pretended() as machine:
        gpu = Blip2.load("tiny", device="cuda", dtype="float32", batch_size=4)
        before = len(machine.waits)
        wrong = ["texts differ" for _ in range(3) if captions(gpu) != right]
        waits = len(machine.waits) - before
        if gpu.model.trouble is not None:
            wrong.append(gpu.model.trouble)
        if not machine.replays:
            wrong.append("nothing is replayed")
        del gpu
        gc.collect()
        return wrong + machine.errors, waits


@pytest.fixture(scope="module")
def waits() -> int:
    """Without a mistake."""
    wrong, waits = run()
    assert wrong == []
    return waits


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_noticed(name: str, waits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    MISTAKES[name].plant(monkeypatch)
    try:
        wrong, waited = run()
    except Exception as error:  # noqa: BLE001 - whatever is raised is noticed
        wrong, waited = [repr(error)], waits
    assert (wrong != [] or waited > waits) == (name not in UNNOTICED), (wrong, waited, waits)


def test_most_mistakes_are_noticed() -> None:
    assert UNNOTICED.keys() <= MISTAKES.keys()
    assert len(MISTAKES) - len(UNNOTICED) >= 14
