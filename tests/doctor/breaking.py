"""Checkpoints broken in one way each, and what the doctor says of them."""

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
from blip2cli.doctor.model_under_test import Patient, Picture
from blip2cli.doctor.options import DoctorOptions
from blip2cli.doctor.report import Finding
from blip2cli.model.checkpoint.directory import inspect_checkpoint
from blip2cli.model.placement.dtype import Placement
from blip2cli.options import Dtype

Break = Callable[[Path], None]


def settings(file: str, **changes: Any) -> Break:
    """Change entries of a JSON file; ``text_config__eos_token_id=2`` reaches into a part."""

    def change(directory: Path) -> None:
        path = directory / file
        whole = json.loads(path.read_text(encoding="utf-8"))
        for name, value in changes.items():
            *parts, last = name.split("__")
            place = whole
            for part in parts:
                place = place[part]
            if value is REMOVED:
                place.pop(last)
            else:
                place[last] = value
        path.write_text(json.dumps(whole), encoding="utf-8")

    return change


REMOVED = object()


def weights(change: Callable[[dict[str, Tensor]], None]) -> Break:
    """Change the weights, whatever files they are in; afterwards one file holds them."""

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
    """One thing after the other."""

    def change(directory: Path) -> None:
        for one in breaks:
            one(directory)

    return change


def look(directory: Path, dtype: Dtype = "float32") -> dict[str, Finding]:
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


def fails_alone(
    sound: dict[str, Finding], found: dict[str, Finding], check: str, *words: str
) -> None:
    """``check`` failed, with ``words`` in what is said, and nothing else is other than before.

    What cannot be looked at because of it is skipped, and says so.
    """
    failed = found[check]
    assert failed.status == "fail", failed
    assert failed.mend
    for word in words:
        assert word in f"{failed.found} → {failed.mend}", failed
    skipped = {check}  # and what waits for it, one after the other
    for name, before in sound.items():
        if name == check:
            continue
        after = found[name]
        if after.status == "skipped" and after.found.removesuffix(" comes first") in skipped:
            skipped.add(name)
        else:
            assert after.status == before.status, (before, after)


def patient(path: Path, dtype: torch.dtype, pictures: tuple[Picture, ...]) -> Patient:
    """A checkpoint as the checks see it."""
    checkpoint = inspect_checkpoint(path)
    return Patient("m", checkpoint, Placement(torch.device("cpu"), dtype, "asked"), pictures)
