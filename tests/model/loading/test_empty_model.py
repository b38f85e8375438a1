"""Settings with which no model can be run are refused by a run and by a conversion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blip2cli.errors import ModelError
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions
from tests.convert.checkpoints.helpers import MAKERS, convert

WRONG = [
    ("opt", "vision_config", {"hidden_act": "mish"}, "uses the activation mish, which BLIP-2"),
    ("t5", "text_config", {"decoder_start_token_id": 1 << 20}, "texts begin with token 1048576"),
    ("itm", "qformer_config", {"use_qformer_text_input": False}, "Q-Former does not read texts"),
]


@pytest.mark.parametrize(("kind", "section", "settings", "problem"), WRONG)
def test_settings_of_no_model_are_refused(
    kind: str, section: str, settings: dict[str, object], problem: str, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    MAKERS[kind](model)
    config = json.loads((model / "config.json").read_text())
    config[section] |= settings
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=problem):
        Blip2.load(ModelOptions(str(model), device="cpu"))
    with pytest.raises(ModelError, match=problem):
        convert(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
