"""InstructBLIP on a pretended CUDA device: rows are the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.api import Blip2
from blip2cli.options import Dtype
from tests.instruct_checkpoints import tiny_random_instruct_t5, tiny_random_vicuna
from tests.model.device_tasks import TASKS, differing
from tests.pretend import pretended, what_is_missing

MISSING = what_is_missing()
pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.external,
]

TASKS_OF_WRITERS = {
    name: task for name, task in TASKS["tiny"].items() if name != "vectors of queries"
}


def load(directory: Path, device: str, dtype: Dtype = "float32") -> Blip2:
    return Blip2.load(str(directory), device=device, dtype=dtype, batch_size=8)


@pytest.mark.parametrize("make", [tiny_random_vicuna, tiny_random_instruct_t5])
def test_rows_are_those_of_the_cpu(make: Callable[[Path], Path], tmp_path: Path) -> None:
    directory = make(tmp_path / "m")
    cpu = load(directory, "cpu")
    with pretended() as machine:
        gpu = load(directory, "cuda")
        assert differing(TASKS_OF_WRITERS, cpu, gpu) == {}
        assert gpu.model.trouble is None
        assert machine.errors == []
        assert machine.replays > 8


@pytest.mark.parametrize("make", [tiny_random_vicuna, tiny_random_instruct_t5])
def test_nothing_goes_wrong_in_bfloat16(make: Callable[[Path], Path], tmp_path: Path) -> None:
    directory = make(tmp_path / "m")
    with pretended() as machine:
        gpu = load(directory, "cuda", "bfloat16")
        for name in ("captions", "beams", "answers", "closed choices"):
            TASKS_OF_WRITERS[name](gpu)
        assert machine.errors == []
        assert gpu.model.trouble is None
