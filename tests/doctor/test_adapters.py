"""Whether an adapter changes what a model says of pictures is told."""

from __future__ import annotations

from pathlib import Path

import torch

from blip2cli.doctor.adapters import changes_text
from blip2cli.doctor.examine import examine
from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.pictures import Picture
from blip2cli.doctor.report import Outcome
from blip2cli.model.checkpoint.resolve import resolve
from blip2cli.model.placement.dtype import Placement
from blip2cli.options import DoctorOptions
from tests.adapters import PREFIX, Q_PROJ, RANK, adapter, low_rank
from tests.doctor.conftest import Sound

PROJECTION = "language_projection"
SCORES = "qformer.encoder.layer.0.attention.output.dense"


def outcome(
    pictures: tuple[Picture, ...], base: Path, lora: Path, scale: str = "", name: str = "m"
) -> Outcome:
    checkpoint = resolve(str(base), adapters=[f"{lora}{scale}"])
    placement = Placement(torch.device("cpu"), torch.float32, "asked")
    return changes_text(ModelUnderTest(name, checkpoint, placement, pictures))


def test_changed_texts_are_told(
    t5: Sound, itm: Sound, pictures: tuple[Picture, ...], tmp_path: Path
) -> None:
    lora = adapter(tmp_path / "lora", "someone/base", low_rank(t5.path, PROJECTION))
    found = outcome(pictures, t5.path, lora, "@30")
    assert found.status == "ok"
    assert "it changes the text of " in found.found
    assert "trained on" not in found.found
    other = outcome(pictures, t5.path, lora, "@30", name="someone/other").found
    assert other == f"{found.found}; it was trained on someone/base, not on someone/other"
    assert "does not change the text of these 2" in outcome(pictures, t5.path, lora, "@1e-3").found
    found = outcome(pictures, t5.path, lora, "@0")
    assert (found.status, found.found.partition(":")[0]) == (
        "warn",
        "it changes nothing that the model says of pictures",
    )
    lora = adapter(tmp_path / "itm", None, low_rank(itm.path, SCORES))
    assert outcome(pictures, itm.path, lora).found.startswith("it changes how pictures match texts")


def test_all_checks_take_an_adapter(opt: Sound, tmp_path: Path) -> None:
    width = resolve("tiny").config["text_config"]["hidden_size"]
    zeros = {
        f"{PREFIX}{Q_PROJ}.lora_A.weight": torch.zeros(RANK, width),
        f"{PREFIX}{Q_PROJ}.lora_B.weight": torch.zeros(width, RANK),
    }
    lora = adapter(tmp_path / "lora", "tiny", zeros)
    report = examine(DoctorOptions(str(lora), device="cpu", dtype="float32"))
    found = {finding.check: finding for finding in report.findings}
    assert found.keys() == opt.findings.keys() | {"adapter"}
    assert found["adapter"].status == "warn"
    assert not report.failures
