"""One thread where the number of threads decides about bits.

In bfloat16 on AMX oneDNN cuts sums otherwise for one thread than for two (see ``calls``). A small
model is run by the threads of a run that compute alone, each with a batch (see ``lanes``); so
whoever else calls it, a run that reads paths on stdin or the Python API, has one thread as well,
and gets the same bits in 1.25 times the time (two cores, batches of 64 with ``tiny``). Larger
models have all threads everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch

from blip2cli.model.layers.linear import has_equal_calls
from blip2cli.model.nets.blip2 import Matcher, Writer
from blip2cli.model.placement.batch_size import is_small

P = ParamSpec("P")
Result = TypeVar("Result")


class Computes(Protocol):
    """What has methods that run a model."""

    @property
    def computes_alone(self) -> bool:
        """Whether they are to have one thread."""


Owner = TypeVar("Owner", bound=Computes)
Method = Callable[Concatenate[Owner, P], Result]


def needs_one_thread(model: Writer | Matcher) -> bool:
    """Whether ``model`` is small, and its bits depend on the number of threads."""
    return has_equal_calls(model) and is_small(model)


@contextmanager
def one_thread() -> Iterator[None]:
    """Operations of this thread take no other to help."""
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)


def alone(method: Method[Owner, P, Result]) -> Method[Owner, P, Result]:
    """For methods of what computes alone."""

    @functools.wraps(method)
    def run(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        if not self.computes_alone:
            return method(self, *args, **kwargs)
        with one_thread():
            return method(self, *args, **kwargs)

    return run
