from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.generation_defaults import unheeded_settings
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from tests.foreign_checkpoints import configured


@pytest.fixture
def copy(opt_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(opt_directory, tmp_path / "copy"))


def alone(directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink()
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (directory / "adapter_model.safetensors").write_bytes(b"")


def beside(directory: Path) -> None:
    (directory / "adapter_model.bin").write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (alone, r"LoRA \(adapter_config\.json\), and no whole model; merge it into its base"),
        (beside, r"\(adapter_model\.bin\), beside a model; .* merged already, remove its files"),
    ],
)
def test_adapters_are_named(change: Callable[[Path], None], said: str, copy: Path) -> None:
    change(copy)
    with pytest.raises(ModelError, match=said):
        inspect_checkpoint(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_pointers_of_git_lfs_are_named(name: str, copy: Path) -> None:
    (copy / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ModelError, match=rf"{name} is only a pointer of Git LFS .* git lfs pull"):
        inspect_checkpoint(copy)


@pytest.mark.parametrize("name", ["model.pth", "last.ckpt", "model.fp16.safetensors", "q4.gguf"])
def test_weights_by_another_name_are_named(name: str, copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / name)
    with pytest.raises(ModelError, match=f"under a name that is read .*, but {name}; save"):
        inspect_checkpoint(copy)


@pytest.mark.parametrize("section", ["vision_config", "qformer_config", "text_config"])
@pytest.mark.parametrize("value", [[1], "x", 3])
def test_sections_that_are_none_are_named(section: str, value: object, copy: Path) -> None:
    configured(copy, lambda config: config.update({section: value}))
    with pytest.raises(ModelError, match=f"holds no object under {section}"):
        inspect_checkpoint(copy)


def test_settings_of_generation_that_nothing_heeds_are_named(copy: Path) -> None:
    file = copy / "generation_config.json"
    assert unheeded_settings(inspect_checkpoint(copy)) == ()
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"top_p": 0.5, "max_length": 20, "num_beams": None}))
    assert unheeded_settings(inspect_checkpoint(copy)) == ()  # without sampling it has no effect
    changes = {"num_beams": 5, "do_sample": True, "top_p": 0.5, "eos_token_id": [2, 202]}
    file.write_text(json.dumps(settings | changes))
    (remark,) = unheeded_settings(inspect_checkpoint(copy))
    said = "sets do_sample True, eos_token_id [2, 202], num_beams 5, top_p 0.5, which BLIP-2"
    assert said in remark
    file.write_text("{")
    assert unheeded_settings(inspect_checkpoint(copy)) == (f"{file} is not valid JSON",)
    file.unlink()
    assert unheeded_settings(inspect_checkpoint(copy)) == ()
