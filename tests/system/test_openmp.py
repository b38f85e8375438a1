"""Threads of one operation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from blip2cli.system import openmp as threads
from tests.command import environment

CODE = """
from blip2cli.system.openmp import after_torch, before_torch
before_torch()
import torch
after_torch()
torch.set_num_threads(1)
"""


def libgomp_says(tmp_path: object) -> str:
    """What libgomp found in the environment when torch loaded it."""
    env = environment(tmp_path, OMP_DISPLAY_ENV="VERBOSE")  # type: ignore[arg-type]
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=True
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this torch is built with another OpenMP than GNU's")
    return done.stderr


def test_waiting_threads_spin_shortly(tmp_path: object) -> None:
    assert f"GOMP_SPINCOUNT = '{threads.SPIN}'" in libgomp_says(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("GOMP_SPINCOUNT", "77"), ("OMP_WAIT_POLICY", "ACTIVE")]
)
def test_what_the_user_says_of_it_is_kept(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "torch")
    threads.before_torch()
    assert os.environ.get("GOMP_SPINCOUNT") == {"GOMP_SPINCOUNT": value}.get(name)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("cores", "given", "number"), [(1, False, 1), (2, False, 2), (64, False, 2), (1, True, 2)]
)
def test_no_more_threads_than_cores_unless_they_are_given(
    cores: int, given: bool, number: int, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
    threads.after_torch()
    assert torch.get_num_threads() == number
