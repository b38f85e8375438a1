"""Settings of glibc's malloc."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blip2cli.model import wrapper
from blip2cli.options import ModelOptions
from tests.command import environment

# Pages that are mapped when eight times four pieces of 24 MB are made, written and freed together,
# as was done once before.
CODE = """
import resource, sys
from blip2cli.system import malloc
told = malloc.keep_freed_memory() if sys.argv[1] == "keep" else None
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    [bytes([number]) * (24 << 20) for number in range(1, 5)]
use()
before = faults()
for _ in range(8):
    use()
print(told, faults() - before)
"""
glibc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")


def measured(tmp_path: Path, kept: str, **more: str) -> tuple[str, int]:
    """What was said of it, and how many pages were mapped anew."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, kept],
        env=environment(tmp_path, **more),
        capture_output=True,
        text=True,
        check=True,
    )
    told, faults = done.stdout.split()
    return told, int(faults)


@glibc
def test_memory_that_was_freed_is_not_mapped_anew(tmp_path: Path) -> None:
    told, faults = measured(tmp_path, "keep")
    if told == "False":
        pytest.skip("another C library than glibc")
    assert faults < 1000
    assert measured(tmp_path, "as it is")[1] > 10_000


@glibc
@pytest.mark.parametrize(
    "more",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"},
    ],
)
def test_what_the_user_says_of_it_is_kept(more: dict[str, str], tmp_path: Path) -> None:
    told, faults = measured(tmp_path, "keep", **more)
    assert told == "False"
    assert faults > 10_000


def test_a_model_on_a_cpu_says_so_once_its_weights_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []
    load = wrapper.load_model

    def loading(*given: Any, **named: Any) -> Any:
        loaded = load(*given, **named)
        order.append("loaded")
        return loaded

    monkeypatch.setattr(wrapper, "load_model", loading)
    monkeypatch.setattr(wrapper, "keep_freed_memory", lambda: order.append("kept"))
    wrapper.Blip2.load(ModelOptions("tiny", device="cpu"))
    assert order == ["loaded", "kept"]
