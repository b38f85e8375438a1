from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip2cli.errors import ModelError, OptionError
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions
from tests.model.conftest import plain


@pytest.fixture
def copy(opt_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(opt_directory, tmp_path / "copy"))


def load(directory: Path) -> Blip2:
    return Blip2.load(ModelOptions(model=str(directory), device="cpu"))


def test_loaded_weights_are_the_files_own(opt_directory: Path) -> None:
    model = plain(opt_directory)
    saved = load_file(opt_directory / "model.safetensors")
    loaded = model.state_dict()
    assert saved.keys() <= loaded.keys()
    assert all(torch.equal(weight, loaded[name]) for name, weight in saved.items())
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())


def test_bfloat16_is_taken_when_asked_for(opt_directory: Path) -> None:
    options = ModelOptions(model=str(opt_directory), device="cpu", dtype="bfloat16")
    model = Blip2.load(options)
    assert model.dtype is torch.bfloat16
    assert model.reason == "cpu (asked for), bfloat16 (asked for)"
    pixels = torch.zeros(1, 3, model.spec.height, model.spec.width, dtype=torch.uint8)
    assert model.features(pixels).language_inputs.dtype is torch.bfloat16


def test_missing_weights_are_an_error_not_random(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["language_projection.weight"]
    del weights["qformer.layernorm.bias"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"lacks 2 weights of .*language_projection\.weight, qformer"
    ):
        load(copy)


def test_pictures_of_another_size_are_refused(copy: Path) -> None:
    # transformers takes the first of the positions, and says other things about the picture.
    (file,) = (copy / name for name in os.listdir(copy) if "processor_config" in name)
    settings = json.loads(file.read_text())
    inner = settings.get("image_processor", settings)
    assert inner["size"] == {"height": 32, "width": 32}
    inner["size"] = {"height": 24, "width": 24}
    file.write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="for 24x24 pixels, but its vision encoder reads 32x32"):
        load(copy)


def test_tied_weights_may_be_missing(copy: Path) -> None:
    assert "language_model.lm_head.weight" not in load_file(copy / "model.safetensors")
    language = plain(copy).language_model
    assert language.lm_head.weight is language.model.decoder.embed_tokens.weight


def test_weights_of_another_shape_are_an_error(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["language_projection.weight"] = torch.zeros(3, 3)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="shape"):
        load(copy)


@pytest.mark.parametrize("length", [0, 5, 300, -1])
def test_truncated_safetensors_are_named(copy: Path, length: int) -> None:
    file = copy / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:length])
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged or cut short"):
        load(copy)


def test_garbled_safetensors_header_is_named(copy: Path) -> None:
    file = copy / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[8:40] = b"\xff" * 32
    file.write_bytes(data)
    with pytest.raises(ModelError, match="damaged or cut short"):
        load(copy)


class Bomb:
    """Unpickling this would write a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.file,))


def test_pickles_hold_tensors_or_are_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({"vision_model": Bomb(tmp_path / "exploded")}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="use a safetensors copy"):
        load(copy)
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(ModelError, match="use a safetensors copy"):
        load(copy)
    assert not (tmp_path / "exploded").exists()


def test_code_in_a_checkpoint_is_not_run(copy: Path, tmp_path: Path) -> None:
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for name in ("config.json", "tokenizer_config.json"):
        settings = json.loads((copy / name).read_text())
        settings["auto_map"] = {
            "AutoConfig": "evil.Config",
            "AutoModelForCausalLM": "evil.Model",
            "AutoTokenizer": ["evil.Tokenizer", None],
        }
        (copy / name).write_text(json.dumps(settings))
    load(copy)
    assert not (tmp_path / "ran").exists()


def test_damaged_tokenizer_is_named(copy: Path) -> None:
    (copy / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(ModelError, match=r"the tokenizer in .* cannot be read"):
        load(copy)


def test_float16_with_t5_is_refused_with_the_reason(t5_directory: Path) -> None:
    options = ModelOptions(model=str(t5_directory), device="cpu", dtype="float16")
    with pytest.raises(OptionError, match="overflow"):
        Blip2.load(options)
