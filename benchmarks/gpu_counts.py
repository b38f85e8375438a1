"""The kernels of a batch of captions by blip2-opt-2.7b on a GPU, counted without one.

The engine runs on the pretended GPU of the tests, in the published shapes and without numbers, on
torch's meta device: a batch takes seconds and no memory. Batch size, slots, steps and refills are
what the package chooses for the memory of the GPU and the lengths of the texts.

``python benchmarks/gpu_counts.py OUT`` writes the counts for every GPU of ``gpu_rates`` as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
from gpu_rates import GPUS, Gpu
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from work import LENGTHS

# ``tests`` is no part of the package: a script finds it only from the checkout's own folder.
sys.path.append(str(Path(__file__).resolve().parents[1]))
from blip2cli.images.preprocess import PixelSpec, normalize
from blip2cli.model.checkpoint.config import Blip2Config, read_config
from blip2cli.model.decoding import async_copy
from blip2cli.model.decoding.pipelined_decode import PipelinedScheduler
from blip2cli.model.decoding.requests import DecodeRequest
from blip2cli.model.decoding.scheduler import decode
from blip2cli.model.families import LanguageFamily
from blip2cli.model.nets.blip2 import build
from blip2cli.model.placement.batch_size import auto_batch_size, cuda_slots, free_bytes
from blip2cli.model.vision.features import compute_features
from tests import pretend

OPT_2_7B = {
    "model_type": "opt",
    "hidden_size": 2560,
    "word_embed_proj_dim": 2560,
    "ffn_dim": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 50304,
}
PUBLISHED: dict[str, Any] = {
    "vision_config": {},
    "qformer_config": {},
    "num_query_tokens": 32,
    "text_config": OPT_2_7B,
}
BEGIN = 2  # the id of OPT's first token
MOST_TOKENS = 20  # of a caption
# By operation: the matrices that are multiplied, by their place among the arguments.
PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "_int_mm": 0, "_scaled_mm": 0}
WRITES_ONLY = ("copy_", "fill_", "zero_")
TOUCHES = {"embedding": None, "index": None, "gather": None, "index_put_": 2, "index_copy_": 3}


class Kernel(NamedTuple):
    """One kernel: its products in operations, and what it reads and writes, each once."""

    name: str
    flops: float
    bytes: float


@dataclass
class Segment:
    """What the host has the device do at once, several times alike."""

    times: int = 0
    waits: int = 0  # of the host for the device, all times together
    kernels: Counter[Kernel] = field(default_factory=Counter)  # of one time


@dataclass
class Counts:
    """A batch of captions. ``segments``: ``vision``, ``prefill N``, ``step N``, and ``rest``."""

    batch: int
    slots: int
    gigabytes: float  # of the device's memory, at most
    segments: dict[str, Segment] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        found = asdict(self)
        for name, segment in self.segments.items():
            kernels = [[*kernel, count] for kernel, count in segment.kernels.items()]
            found["segments"][name]["kernels"] = kernels
        return found

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Counts:
        """What ``as_json`` gave."""
        segments = {
            name: Segment(
                each["times"],
                each["waits"],
                Counter({Kernel(*kernel): count for *kernel, count in each["kernels"]}),
            )
            for name, each in values["segments"].items()
        }
        return cls(values["batch"], values["slots"], values["gigabytes"], segments)


class Log:
    """Puts kernels into the segments they belong to."""

    def __init__(self, machine: pretend.Machine) -> None:
        self.segments: dict[str, Segment] = {}
        self._machine = machine
        self._kernels: Counter[Kernel] = Counter()
        self._results: dict[str, Any] = {}

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """What ``work`` gives, a segment of its own; it is done the first time only."""
        if name not in self._results:
            with self.segment(name):
                self._results[name] = work()
        else:
            segment = self.segments[name]
            segment.waits += segment.waits // segment.times
            segment.times += 1
        return self._results[name]

    @contextlib.contextmanager
    def segment(self, name: str) -> Iterator[None]:
        """What runs inside is one of these; segments may lie within another."""
        outer, self._kernels = self._kernels, Counter()
        waits = len(self._machine.waits)
        before = sum(each.waits for each in self.segments.values())
        try:
            yield
        finally:
            within = sum(each.waits for each in self.segments.values()) - before
            counted = len(self._machine.waits) - waits - within
            self.segments[name] = Segment(1, counted, self._kernels)
            self._kernels = outer

    def add(self, func: Any, args: Any, kwargs: Any, made: Any) -> None:
        """An operation that was computed, if it is a kernel."""
        given = {id(t): t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        results = [t for t in tree_leaves(made) if isinstance(t, Tensor)]
        storages = {each.untyped_storage()._cdata for each in given.values()}
        name = func._schema.name.removeprefix("aten::")
        view = all(each.untyped_storage()._cdata in storages for each in results)
        if name.startswith("empty") or (view and not func._schema.is_mutable):
            return
        self._kernels[
            Kernel(name, _flops(name, args, results), _bytes(name, args, given, results))
        ] += 1


class Watched:
    """A decoder session, or its slots, whose prefills and steps are segments.

    Each kind is run once: the next ones are the same kernels.
    """

    def __init__(self, inner: Any, log: Log, slots: int) -> None:
        self._inner, self._log = inner, log
        self.slot_limit = slots

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def open_slots(self, shape: Any, count: int) -> Watched:
        """Slots that are watched."""
        return Watched(self._inner.open_slots(shape, count), self._log, count)

    def prefill(self, slots: Sequence[int], requests: Sequence[Any]) -> Any:
        """See ``KVSlots``; the first one, which runs the images as well, has a name of its own."""
        first = not any(name.startswith("prefill") for name in self._log.segments)
        name = f"prefill {len(slots)}{' and images' if first else ''}"
        return self._log.once(name, lambda: self._inner.prefill(slots, requests))

    def decode_step(self, tokens: Any) -> Any:
        """See ``KVSlots``."""
        return self._log.once(f"step {len(tokens)}", lambda: self._inner.decode_step(tokens))


def count(gpu: Gpu, values: dict[str, Any] | None = None, batch: int | None = None) -> Counts:
    """A batch of captions on ``gpu``: of the model of a configuration, and of ``batch`` images, by
    default of the published model, and as many as a run takes."""
    config, dtype = read_config(values or PUBLISHED), getattr(torch, gpu.dtype)
    assert isinstance(config.family, LanguageFamily)
    capacity = int(gpu.gigabytes * 1e9)
    with pretend.pretended(capacity=capacity, capability=gpu.capability) as machine:
        log = Log(machine)
        machine.held = torch.device("meta")
        with torch.inference_mode(), _watching(log):
            model = _on_device(config, dtype, machine)
            device = torch.device("cuda", 0)
            placed = SimpleNamespace(model=model, ranker=None, device=device)
            batch = batch or auto_batch_size(placed)
            slots = cuda_slots(free_bytes(device) or 0)
            side = config.vision_config.image_size
            held = torch.empty(batch, 3, side, side, dtype=torch.uint8, device="meta")
            pixels = machine.hold(held, device)
            machine.peak = machine.allocated
            with log.segment("rest"):
                with log.segment("vision"):
                    spec = PixelSpec(side, side)
                    features = compute_features(model, normalize(pixels, spec, dtype))
                session = Watched(config.family.open_session(model, features), log, slots)
                rng = random.Random(0)
                lengths = rng.choices([*LENGTHS], [*LENGTHS.values()], k=batch)
                requests = [
                    DecodeRequest(image, (BEGIN,), length, MOST_TOKENS)
                    for image, length in enumerate(lengths)
                ]
                decode(session, requests, (), None, PipelinedScheduler)  # type: ignore[arg-type]
        if machine.errors:
            raise RuntimeError(machine.errors[0])
        return Counts(batch, slots, machine.peak / 1e9, log.segments)


@contextlib.contextmanager
def _watching(log: Log) -> Iterator[None]:
    compute = pretend.compute

    def computed(func: Any, args: Any, kwargs: Any) -> Any:
        made = compute(func, args, kwargs)
        log.add(func, args, kwargs, made)
        return made

    def values(copy: Any) -> list[Any]:
        """Nothing is known of tokens; texts end by their lengths."""
        return [torch.zeros(tensor.shape, device="cpu").tolist() for tensor in copy._held]

    with (
        mock.patch.object(pretend, "compute", computed),
        mock.patch.object(async_copy.AsyncCopy, "values", values),
    ):
        yield


def _on_device(config: Blip2Config, dtype: torch.dtype, machine: pretend.Machine) -> Any:
    """The model of a configuration, its weights shapes on the device."""
    with torch.device("meta"):
        model = build(config)
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                held = torch.empty(weight.shape, dtype=dtype, device="meta")
                there = machine.hold(held, torch.device("cuda", 0))
                module._parameters[name] = nn.Parameter(there, requires_grad=False)
    language = model.language_model
    language.lm_head.weight = language.input_embeddings.weight  # one matrix
    return model


def _flops(name: str, args: Any, results: list[Tensor]) -> float:
    if name == "convolution":  # of patches
        return 2.0 * results[0].numel() * args[1][0].numel()
    if name in PRODUCTS:
        left, right = args[PRODUCTS[name] : PRODUCTS[name] + 2]
        return 2.0 * left.numel() * right.shape[-1]
    if name == "scaled_dot_product_attention":
        return 4.0 * args[0].numel() * args[1].shape[-2]
    return 0.0


def _bytes(name: str, args: Any, given: dict[int, Tensor], results: list[Tensor]) -> float:
    """Each tensor once: those that are read, and those that are written."""
    if name in TOUCHES:  # only what is taken, or put somewhere
        place = TOUCHES[name]
        return 2.0 * _size(results[0] if place is None else args[place])
    read = sum(_size(each) for each in given.values())
    written = sum(_size(each) for each in results)
    return read + written - (_size(args[0]) if name in WRITES_ONLY else 0)


def _size(tensor: Tensor) -> int:
    """Bytes in memory; a tensor that is expanded has fewer than numbers."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def main() -> None:
    """Write the counts of this checkout."""
    parser = argparse.ArgumentParser(description="Count the kernels of a batch on each GPU.")
    parser.add_argument("out", type=Path)
    found = {gpu.name: count(gpu).as_json() for gpu in GPUS}
    parser.parse_args().out.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
