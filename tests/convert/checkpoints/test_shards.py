"""Shards hold what they should, in the library's own format, written one weight at a time."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from blip2cli.convert.checkpoints.shards import cast, parse_size, plan, write_shards
from blip2cli.errors import OptionError
from blip2cli.model.checkpoint.lazy_weights import DTYPES, Weight, Weights


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("500 mb", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("100", 100), ("7k", 7000)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "2 quarts", "1e9"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match="max_shard_size takes a size such as 2GB"):
        parse_size(text)


def weights_of(**tensors: Tensor) -> Weights:
    return {name: Weight.of(tensor) for name, tensor in tensors.items()}


def test_a_shard_is_full_before_the_next_begins() -> None:
    weights = weights_of(a=torch.ones(3), b=torch.ones(2), c=torch.ones(100), d=torch.ones(5))
    assert plan(weights, 20) == [["a", "b"], ["c"], ["d"]]
    assert plan(weights, 10**6) == [["a", "b", "c", "d"]]


def test_files_are_what_the_library_reads(tmp_path: Path) -> None:
    made = {
        f"{spelled}": torch.randint(0, 2, (3, number + 1)).to(dtype)
        for number, (spelled, dtype) in enumerate(DTYPES.items())
    }
    made |= {
        "scalar": torch.tensor(0.07),
        "empty": torch.ones(0, 3),
        "turned": torch.rand(4, 5).t(),
    }
    progress_calls: list[tuple[int, int]] = []
    write_shards(
        weights_of(**made), tmp_path, 60, lambda *progress: progress_calls.append(progress)
    )
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    read: dict[str, Tensor] = {}
    for file in files:
        part = load_file(tmp_path / file)
        assert {index["weight_map"][name] for name in part} == {file}
        read |= part
    assert read.keys() == made.keys() == index["weight_map"].keys()
    for name, tensor in made.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name
    size = sum(tensor.nbytes for tensor in made.values())
    assert index["metadata"]["total_size"] == size
    assert progress_calls[-1] == (size, size)
    assert len(progress_calls) == len(made)


def test_one_file_needs_no_index(tmp_path: Path) -> None:
    write_shards(weights_of(a=torch.ones(3)), tmp_path, 60, lambda done, total: None)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_one_weight_is_in_memory_at_a_time(tmp_path: Path) -> None:
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def load() -> Tensor:
        nonlocal most
        most = max(most, sum(one() is not None for one in alive))
        tensor = torch.ones(1000)
        alive.append(weakref.ref(tensor))
        return tensor

    weights = {f"w{n}": Weight((1000,), torch.float32, load) for n in range(20)}
    halves = cast(weights, torch.float16)
    write_shards(halves, tmp_path, 10**9, lambda done, total: None)
    assert len(alive) == 20
    assert most == 0


def test_numbers_too_large_for_float16_are_named(tmp_path: Path) -> None:
    given = weights_of(small=torch.ones(2), big=torch.tensor([1.0, 1e6]))
    weights = cast(given, torch.float16)
    with pytest.raises(OptionError, match=r"float16 cannot hold big \(up to 1e\+06\)"):
        write_shards(weights, tmp_path, 10**9, lambda done, total: None)
    finite = cast(weights_of(big=torch.tensor([1e6])), torch.bfloat16)
    assert finite["big"].load().item() == pytest.approx(1e6, rel=0.01)
    already = cast(weights_of(odd=torch.tensor([float("inf")])), torch.float16)
    assert already["odd"].load().isinf().all()
    counts = cast(weights_of(n=torch.tensor([70_000])), torch.float16)
    assert counts["n"].dtype == torch.int64
