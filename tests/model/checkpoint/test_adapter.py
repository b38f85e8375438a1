"""Adapters are found and read without torch; what is none of LoRA is refused by its name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from blip2cli.errors import ModelError, OptionError
from blip2cli.model.checkpoint.identity import weights_identity
from blip2cli.model.checkpoint.resolve import local_checkpoint, resolve
from blip2cli.options import ModelOptions
from tests.adapters import Q_PROJ, adapter, low_rank


@pytest.fixture
def lora(opt_directory: Path, tmp_path: Path) -> Path:
    return adapter(tmp_path / "lora", opt_directory, low_rank(opt_directory, Q_PROJ))


def changed(lora: Path, **settings: Any) -> Path:
    file = lora / "adapter_config.json"
    about = json.loads(file.read_text()) | settings
    file.write_text(json.dumps({k: v for k, v in about.items() if v != "gone"}))
    return lora


def test_an_adapter_stands_for_its_base_model(lora: Path, opt_directory: Path) -> None:
    found = resolve(str(lora))
    assert found.path == opt_directory
    assert [(each.path, each.scale) for each in found.adapters] == [(lora, 1.0)]
    again = resolve(str(lora), adapters=(f"{lora}@0.25",))
    assert [each.scale for each in again.adapters] == [1.0, 0.25]
    assert local_checkpoint(ModelOptions(str(lora), adapter=(str(lora),))) is not None


def test_its_configuration_may_have_been_renamed(lora: Path, opt_directory: Path) -> None:
    (lora / "adapter_config.json").rename(lora / "config.json")
    assert resolve(str(lora)).path == opt_directory
    (lora / "adapter_model.safetensors").rename(lora / "model.safetensors")
    assert resolve(str(opt_directory), adapters=[str(lora)]).adapters[0].weights.stat().st_size


def test_a_base_model_may_be_embedded(lora: Path) -> None:
    assert resolve(str(changed(lora, base_model_name_or_path="tiny"))).path.name == "tiny"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "adapter of PEFT with DoRA, which is not merged; merge it into its"),
        ({"peft_type": "IA3"}, "of the kind IA3, which is not merged"),
        ({"peft_type": "ADALORA"}, "of the kind ADALORA"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights pissa, which changes the base"),
        ({"target_parameters": ["experts"]}, "with target_parameters"),
        ({"trainable_token_indices": [1, 2]}, "with trainable_token_indices"),
        ({"alora_invocation_tokens": [5]}, "with aLoRA"),
        ({"megatron_config": {"a": 1}}, "with megatron_config"),
        ({"some_new_thing": True}, "with some_new_thing, which this version does not know"),
        ({"r": "8"}, r"says r: '8'"),
        ({"lora_alpha": None}, r"says lora_alpha: None"),
        ({"alpha_pattern": {"(": 3}}, r"says alpha_pattern: '\('"),
        ({"rank_pattern": [3]}, r"says rank_pattern: \[3\]"),
        ({"modules_to_save": "head"}, r"says modules_to_save: 'head'"),
        ({"base_model_name_or_path": None}, "names no base model; give its base model with model"),
        ({"base_model_name_or_path": "./gone"}, r"adapter of \./gone, which cannot be used"),
    ],
)
def test_what_is_not_merged_is_named(settings: dict[str, Any], said: str, lora: Path) -> None:
    with pytest.raises(ModelError, match=said):
        resolve(str(changed(lora, **settings)))


def test_settings_of_other_versions_that_are_off_do_not_matter(lora: Path) -> None:
    older = {"enable_lora": None, "merge_weights": False, "peft_type": "gone", "revision": "gone"}
    newer = {"use_dora": False, "layer_replication": None, "some_new_thing": False, "more": {}}
    assert resolve(str(changed(lora, **older, **newer))).adapters


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{lora}@half", "has a scale that is no number; write a number behind the @, such as"),
        ("{lora}@inf", "has a scale that is no number"),
        ("{base}", r"holds no adapter of PEFT \(no adapter_config\.json\)"),
        ("{lora}/adapter_model.safetensors", "is a file; give the directory that it lies in"),
        ("./nowhere", r"adapter \./nowhere is neither a directory nor a hub id"),
    ],
)
def test_what_is_no_adapter_is_refused(
    given: str, said: str, lora: Path, opt_directory: Path
) -> None:
    name = given.format(lora=lora, base=opt_directory)
    with pytest.raises((ModelError, OptionError), match=said):
        resolve(str(opt_directory), adapters=[name])


def test_an_adapter_without_weights_says_so(lora: Path) -> None:
    (lora / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no weights \(looked for adapter_model\.safetensors"):
        resolve(str(lora))


def test_an_adapter_of_an_adapter_is_refused(lora: Path, opt_directory: Path) -> None:
    outer = lora.parent / "outer"
    adapter(outer, lora, low_rank(opt_directory, Q_PROJ))
    with pytest.raises(ModelError, match="which is an adapter itself; give its base model"):
        resolve(str(outer))


def test_merged_weights_have_an_identity_of_their_own(lora: Path, opt_directory: Path) -> None:
    def identity(*adapters: str) -> str:
        return weights_identity(resolve(str(opt_directory), adapters=adapters))

    bare, merged = identity(), identity(str(lora))
    assert merged == weights_identity(resolve(str(lora)))
    assert merged.startswith(bare)
    copy = Path(shutil.copytree(lora, lora.parent / "copy"))
    assert identity(str(changed(copy, base_model_name_or_path="elsewhere"))) == merged
    different = {
        bare,
        merged,
        identity(f"{lora}@0.5"),
        identity(str(lora), str(lora)),
        identity(str(changed(copy, lora_alpha=7))),
        identity(str(adapter(copy, None, low_rank(opt_directory, Q_PROJ, seed=1)))),
    }
    assert len(different) == 6
