from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.embedded import EMBEDDED, embedded_path, embedded_root
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.families import OPT, T5


@pytest.fixture
def copy(opt_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(opt_directory, tmp_path / "copy"))


def test_whole_checkpoint(opt_directory: Path, t5_directory: Path) -> None:
    checkpoint = inspect_checkpoint(opt_directory)
    assert checkpoint.family is OPT
    assert checkpoint.safetensors
    assert checkpoint.weights == (opt_directory / "model.safetensors",)
    assert checkpoint.weight_bytes == (opt_directory / "model.safetensors").stat().st_size
    assert checkpoint.image_processor["size"] == {"height": 32, "width": 32}
    assert inspect_checkpoint(t5_directory).family is T5


def test_directory_without_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        inspect_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\ud800"])
def test_config_that_is_no_json(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text, errors="surrogatepass")
    with pytest.raises(ModelError, match=r"config\.json .*; fetch that file again"):
        inspect_checkpoint(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "llama"}, "holds a llama, not a BLIP-2 model"),
        ({"model_type": None}, "model of unknown type"),
        ({"text_config": {"model_type": "gpt2"}}, "language model gpt2, and blip2cli runs"),
    ],
)
def test_other_models(copy: Path, change: dict[str, object], said: str) -> None:
    config = json.loads((copy / "config.json").read_text()) | change
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=said):
        inspect_checkpoint(copy)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("tokenizer.json", r"has no tokenizer \(tokenizer\.json"),
        ("processor_config.json", "no image processor settings"),
        ("model.safetensors", r"has no weights \(looked for model\.safetensors"),
    ],
)
def test_missing_files_are_named(copy: Path, file: str, said: str) -> None:
    (copy / file).unlink()
    with pytest.raises(ModelError, match=said):
        inspect_checkpoint(copy)


def test_missing_shards_are_named(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"model-2\.safetensors named in .* is missing"):
        inspect_checkpoint(copy)


def test_an_index_cannot_lead_out_of_the_directory(copy: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"outside\.safetensors"):
        inspect_checkpoint(copy)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_models_share_files_by_their_index(name: str) -> None:
    checkpoint = inspect_checkpoint(embedded_path(name))
    assert checkpoint.weights
    assert all(file.is_file() for file in checkpoint.weights)
    vision = embedded_path("tiny") / "vision.safetensors"
    assert vision in checkpoint.weights
    beside = {embedded_path(each) for each in EMBEDDED}
    assert {file.parent for file in checkpoint.weights} <= beside


def test_embedded_models_are_known_by_any_path_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(embedded_root())
    assert len(inspect_checkpoint(Path("tiny-t5")).weights) == 3


@pytest.mark.parametrize("index", ["{}", '{"weight_map": {}}', '{"weight_map": 3}'])
def test_index_without_weights(copy: Path, index: str) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match="does not say which file"):
        inspect_checkpoint(copy)
