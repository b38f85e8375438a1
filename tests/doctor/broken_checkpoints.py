"""Checkpoints broken in one way each, and the findings on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from blip2cli.doctor.examine import examine
from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.pictures import Picture
from blip2cli.doctor.report import Finding
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.placement.dtype import Placement
from blip2cli.options import DoctorOptions, Dtype

Break = Callable[[Path], None]


def settings(file: str, **changes: Any) -> Break:
    """Change entries of a JSON file; ``text_config__eos_token_id=2`` changes a nested one."""

    def change(directory: Path) -> None:
        path = directory / file
        whole = json.loads(path.read_text(encoding="utf-8"))
        for name, value in changes.items():
            *sections, key = name.split("__")
            section = whole
            for inner in sections:
                section = section[inner]
            if value is REMOVED:
                section.pop(key)
            else:
                section[key] = value
        path.write_text(json.dumps(whole), encoding="utf-8")

    return change


REMOVED = object()


def weights(change: Callable[[dict[str, Tensor]], None]) -> Break:
    """Change the weights, and store them in one file, however many there were."""

    def rewrite(directory: Path) -> None:
        held: dict[str, Tensor] = {}
        for file in directory.glob("*.safetensors"):
            held |= load_file(file)
            file.unlink()
        (directory / "model.safetensors.index.json").unlink(missing_ok=True)
        change(held)
        save_file(held, directory / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def both(*breaks: Break) -> Break:
    """Several faults, one after the other."""

    def change(directory: Path) -> None:
        for one in breaks:
            one(directory)

    return change


def findings_on(directory: Path, dtype: Dtype = "float32") -> dict[str, Finding]:
    """All findings on a checkpoint, by the names of their checks."""
    report = examine(DoctorOptions(str(directory), device="cpu", dtype=dtype))
    found = {finding.check: finding for finding in report.findings}
    assert len(found) == len(report.findings)
    return found


def broken(base: Path, place: Path, change: Break) -> Path:
    """A copy of ``base`` under ``place``, changed."""
    copy = place / "broken"
    shutil.copytree(base, copy)
    change(copy)
    return copy


def only_fails(
    sound: dict[str, Finding], found: dict[str, Finding], check: str, *words: str
) -> None:
    """Assert that ``check`` failed, with ``words`` in its text, and no other outcome changed.

    Checks that need it are skipped, and name it.
    """
    failed = found[check]
    assert failed.status == "fail", failed
    assert failed.remedy
    for word in words:
        assert word in f"{failed.found} → {failed.remedy}", failed
    skipped = {check}  # and the checks that need it, directly or not
    for name, before in sound.items():
        if name == check:
            continue
        after = found[name]
        if after.status == "skipped" and after.found.removesuffix(" comes first") in skipped:
            skipped.add(name)
        else:
            assert after.status == before.status, (before, after)


def under_test(path: Path, dtype: torch.dtype, pictures: tuple[Picture, ...]) -> ModelUnderTest:
    """A checkpoint on the CPU, as checks get it."""
    checkpoint = inspect_checkpoint(path)
    return ModelUnderTest("m", checkpoint, Placement(torch.device("cpu"), dtype, "asked"), pictures)
