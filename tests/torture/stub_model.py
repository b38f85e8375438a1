"""Stubs for the model and the image loader, which need torch.

With them a run takes hundredths of a second instead of tenths. The command line, the pipeline, the
journals, the writers and the lock are the real ones; only the texts are made up, as a hash of the
prompt and the name of the image.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from types import ModuleType, SimpleNamespace
from typing import Any

from blip2cli.errors import ImageError
from blip2cli.model.checkpoint.weight_files import Checkpoint
from blip2cli.model.families import OPT
from blip2cli.options import ModelOptions
from blip2cli.storage import durable


@dataclass(frozen=True)
class _Loaded:
    file_name: str
    width: int | None
    height: int | None
    error: ImageError | None = None
    carried: tuple[object, ...] = ()


class _Batches:
    waiting_for = None

    def __init__(self, refs: Iterable[Any], size: int) -> None:
        self._refs = iter(refs)
        self._size = size

    def set_batch_size(self, size: int) -> None:
        self._size = size

    def next_pending(self) -> Callable[[], Any] | None:
        items = tuple(_load(ref) for ref in islice(self._refs, self._size))
        pixels = [item for item in items if item.error is None]  # only their number matters
        return partial(SimpleNamespace, items=items, pixels=pixels) if items else None


@contextmanager
def _load_batches(
    refs: Iterable[Any], spec: object, options: Any, prefetch: bool = False
) -> Iterator[_Batches]:
    yield _Batches(refs, options.batch_size)


def _load(ref: Any) -> _Loaded:
    data = ref.read()
    if not data.startswith(b"\x89PNG"):
        error = ImageError("not_an_image", "The file is no image.")
    elif not data.endswith(b"IEND\xaeB`\x82"):
        error = ImageError("truncated", "The file ends too early.")
    else:
        return _Loaded(ref.file_name, 64, 56, carried=ref.carried)
    return _Loaded(ref.file_name, None, None, error, ref.carried)


class _Cpu(str):
    """A device, as far as it is looked at."""

    type = "cpu"


class _Model:
    name = "tiny"
    family = OPT
    dtype = "torch.float32"
    device = _Cpu("cpu")
    reason = "nothing is computed"
    trouble = None
    ranker = None
    model = SimpleNamespace(remarks=())

    def __init__(self, spec: object) -> None:
        self.spec = spec

    @classmethod
    def load(cls, options: ModelOptions, checkpoint: Checkpoint) -> _Model:
        return cls(checkpoint.pixel_spec)

    def features(self, pixels: object) -> None:
        """Nothing is looked at."""

    def generate(self, features: object, prompts: Sequence[Any], options: object) -> list[Any]:
        return [[self._text(repr(prompt.text) + str(prompt.name))] for prompt in prompts]

    def _text(self, key: str) -> Any:
        digest = hashlib.sha256(key.encode()).digest()
        words = ["a", "cat", "dog", "zwölf", "Bäume", "日本", "\u2028", '"quoted"']
        text = " ".join(words[byte % len(words)] for byte in digest[: 3 + digest[0] % 6])
        return SimpleNamespace(text=text, logprob=-digest[1] / 77, tokens=())


def install() -> None:
    """Register the stubs as the modules that the command imports; torch is not imported then."""
    loader = ModuleType("blip2cli.images.batch_stream")
    loader.__dict__.update(BatchStream=_load_batches, LoadedImage=_Loaded)
    wrapper = ModuleType("blip2cli.model.wrapper")
    wrapper.__dict__.update(Blip2=_Model)
    batch = ModuleType("blip2cli.model.placement.batch_size")
    batch.__dict__.update(batch_threads=lambda model: 1, auto_batch_size=lambda model: 16)
    threads = ModuleType("blip2cli.model.placement.single_thread")
    threads.__dict__.update(deciding_threads=lambda model: None)
    stubs = (loader, wrapper, batch, threads)
    sys.modules.update({module.__name__: module for module in stubs})
    durable.os = _CountedNames()  # type: ignore[attr-defined] # the same names in every run


class _CountedNames:
    """The module ``os``, with numbers in place of random bytes: faults are injected by path.

    A number that is part of a name a killed run left is passed over.
    """

    def __init__(self) -> None:
        self._numbers = count(1000)
        self._left: list[str] | None = None  # when the first number was asked for

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def urandom(self, size: int) -> bytes:
        """The next number."""
        if self._left is None:
            self._left = []
            with suppress(OSError):
                self._left = os.listdir("trial")
        while True:
            number = next(self._numbers).to_bytes(size)
            if not any(number.hex() in name for name in self._left):
                return number
