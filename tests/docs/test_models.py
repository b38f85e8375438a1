"""``docs/reference/models.md`` says of every published model what becomes of it.

``published_models.json`` holds what tells them apart of their configurations; null: there is none.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.config import read_config
from blip2cli.model.checkpoint.other_models import check_kind, no_model
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "models.md"
CONFIGURATIONS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "published_models.json").read_text()
)
LABELS = {"OPT": "opt", "Flan-T5": "t5", "Llama": "vicuna", "none": "itm"}
HUB_IDS = re.compile(r"`([\w.-]+/[\w.-]+)`")


def rows(heading: str) -> dict[str, str]:
    """The second cell of the row of each model under a heading."""
    text = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = (line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `"))
    return {name: row[1].strip() for row in cells for name in HUB_IDS.findall(row[0])}


RUN, REFUSED = rows("Run"), rows("Refused")


def directory(folder: Path, config: dict[str, Any]) -> Path:
    """What ``inspect_checkpoint`` looks at, with this configuration."""
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"")
    (folder / "qformer_tokenizer").mkdir()
    (folder / "qformer_tokenizer" / "tokenizer.json").write_text("{}")
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 224, "width": 224}}')
    return folder


def test_every_model_is_in_one_of_the_tables() -> None:
    assert [*RUN, *REFUSED] == [*CONFIGURATIONS]


@pytest.mark.parametrize("name", RUN)
def test_models_are_run(name: str, tmp_path: Path) -> None:
    found = inspect_checkpoint(directory(tmp_path, CONFIGURATIONS[name]))
    assert found.family.name == LABELS[RUN[name]]
    config = read_config(found.config, found.family)
    size = 364 if "coco" in name else 224
    assert config.vision_config.image_size == size
    assert config.num_query_tokens == 32


@pytest.mark.parametrize("name", REFUSED)
def test_models_are_refused_with_the_sentence_that_the_page_says(name: str, tmp_path: Path) -> None:
    config = CONFIGURATIONS[name]
    where = name if config is None else str(tmp_path)
    if config is None:
        error = no_model(name, ["model_index.json", "README.md"])
    else:
        with pytest.raises(ModelError) as caught:
            inspect_checkpoint(directory(tmp_path, config))
        error = caught.value
    assert str(error) == f"{where} {REFUSED[name]}."


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "llama"}, "holds a llama, not a BLIP-2 model .*; look for one such as"),
        ({}, "holds a model of unknown type, not a BLIP-2 model"),
        ({"model_type": "blip-2", "architectures": ["BlipForQuestionAnswering"]}, "holds BLIP,"),
        ({"model_type": "blip_2_qformer"}, "holds only a part of a BLIP-2, which writes"),
        ({"model_type": "blip-2", "architectures": ["Blip2VisionModel"]}, "only a part of"),
    ],
)
def test_others_are_named(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        check_kind("x", config)
