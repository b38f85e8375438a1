"""The engine on a pretended MPS device: the rows of the CPU, without what such a device lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from blip2cli.api import Blip2
from blip2cli.errors import OptionError
from tests.model.device_tasks import TASKS, Tasks, differing
from tests.pretend import what_is_missing
from tests.pretend_mps import Mps, pretended_mps, runs_on_mps

MISSING = what_is_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
PAGE = Path(__file__).parents[2] / "docs/guides/gpu.md"


@pytest.fixture
def mps() -> Iterator[Mps]:
    with pretended_mps() as machine:
        yield machine


def test_there_is_no_float64(mps: Mps) -> None:
    rows = torch.ones(3, device="mps")
    with pytest.raises(TypeError, match="doesn't support float64"):
        rows.double()
    with pytest.raises(TypeError, match="doesn't support float64"):
        torch.zeros(3, dtype=torch.float64, device="mps")
    assert (rows * 2.5).tolist() == [2.5] * 3  # a number of Python is none


def test_what_torch_has_no_kernel_for_is_refused(mps: Mps) -> None:

    for name in ("topk", "index.Tensor", "_index_put_impl_", "searchsorted.Tensor", "cumsum"):
        assert runs_on_mps(name), name
    for name in ("_int_mm", "linalg_eig", "no_such_operator"):
        assert not runs_on_mps(name), name
    ones = torch.ones(17, 8, dtype=torch.int8, device="mps")
    with pytest.raises(NotImplementedError, match="'aten::_int_mm' is not currently implemented"):
        torch._int_mm(ones, ones[:8])


def check(name: str, tasks: Tasks) -> None:
    """Rows are those of the CPU."""
    cpu = Blip2.load(name, device="cpu", dtype="float32", batch_size=8)
    with pretended_mps() as machine:
        device = Blip2.load(name, device="auto", batch_size=8)
        assert str(device.model.device) == "mps:0"
        assert device.model.dtype == torch.float32
        assert differing(tasks, cpu, device, times=1) == {}
        assert machine.errors == []
        assert sum(machine.kernels.values()) > 500


def test_texts_are_chosen_as_on_the_cpu() -> None:
    some = ("drawn from the likeliest", "rules", "beams by rules", "choices by pmi")
    check("tiny", {name: TASKS["tiny"][name] for name in some})


@pytest.mark.external
@pytest.mark.parametrize("name", TASKS)
def test_rows_are_those_of_the_cpu(name: str) -> None:
    check(name, TASKS[name])


@pytest.mark.parametrize(
    "options", [{"quantize": "int8"}, {"compile": True}, {"device_map": "auto"}], ids=repr
)
def test_what_does_not_run_there_is_refused(mps: Mps, options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="mps"):
        Blip2.load("tiny", device="mps", **options)  # type: ignore[arg-type]
    assert re.search(rf"`--{next(iter(options)).replace('_', '-')}`", PAGE.read_text())
