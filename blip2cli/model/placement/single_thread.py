"""Running torch's operations in a single thread, where the number of threads decides the bits.

In bfloat16 on AMX oneDNN splits sums in another way for one thread than for two (see
``gemm_rows``). A small model is run by a run's batch threads, whose operations have one thread each
(see ``pipeline.compute.threads``); so every other caller, a run that reads paths on stdin or the
Python API, has a single thread as well, and gets the same bits in 1.25 times the time (two cores,
batches of 64 with ``tiny``). Larger models have all threads everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch

from blip2cli.model.layers.packed_linear import has_fixed_gemm_rows
from blip2cli.model.nets.blip2 import Blip2Net
from blip2cli.model.placement.batch_size import is_small

P = ParamSpec("P")
Result = TypeVar("Result")


class RunsModel(Protocol):
    """An object whose methods run a model."""

    @property
    def runs_single_threaded(self) -> bool:
        """Whether they run in a single thread."""


class OneModel(RunsModel, Protocol):
    """A loaded model by itself."""

    model: Blip2Net


class Placed(OneModel, Protocol):
    """A loaded model, perhaps with another one beside it."""

    @property
    def ranker(self) -> OneModel | None:
        """The model that ranks its texts; None: there is none."""


Owner = TypeVar("Owner", bound=RunsModel)
Method = Callable[Concatenate[Owner, P], Result]


def needs_single_thread(model: Blip2Net) -> bool:
    """Whether ``model`` is small, and its bits depend on the number of threads."""
    return has_fixed_gemm_rows(model) and is_small(model)


def deciding_threads(model: Placed) -> int | None:
    """The number of threads that an operation has, where a row's last bits depend on it."""
    both: list[OneModel] = [model] if model.ranker is None else [model, model.ranker]
    if all(one.runs_single_threaded or not has_fixed_gemm_rows(one.model) for one in both):
        return None
    return torch.get_num_threads()


@contextmanager
def single_thread() -> Iterator[None]:
    """Inside, operations of this thread are not split among others."""
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)


def single_threaded(method: Method[Owner, P, Result]) -> Method[Owner, P, Result]:
    """Decorate a method: it runs in a single thread if its object ``runs_single_threaded``."""

    @functools.wraps(method)
    def run(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        if not self.runs_single_threaded:
            return method(self, *args, **kwargs)
        with single_thread():
            return method(self, *args, **kwargs)

    return run
