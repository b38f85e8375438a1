"""Damaged, missing and unused weights are found."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.doctor.broken_checkpoints import (
    Break,
    both,
    broken,
    findings_on,
    only_fails,
    settings,
    weights,
)
from tests.doctor.conftest import Sound

EMBEDDING = "language_model.model.decoder.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"
Change = Callable[[dict[str, Tensor]], None]


def poisoned(name: str, value: float) -> Break:
    """One number of the weight ``name`` becomes ``value``."""

    def change(held: dict[str, Tensor]) -> None:
        held[name].view(-1)[-1] = value

    return weights(change)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vision_model.encoder.layers.3.mlp.fc1.weight", math.nan),
        ("language_model.model.decoder.layers.1.fc2.bias", math.inf),
        ("query_tokens", -math.inf),
    ],
)
def test_one_number_that_is_not_finite_is_found(
    opt: Sound, tmp_path: Path, name: str, value: float
) -> None:
    found = findings_on(broken(opt.path, tmp_path, poisoned(name, value)))
    only_fails(opt.findings, found, "finite-weights", name, "fetch the model again")


def missing(held: dict[str, Tensor]) -> None:
    del held["vision_model.post_layernorm.weight"]


def misshapen(held: dict[str, Tensor]) -> None:
    held["query_tokens"] = held["query_tokens"][:, :8].clone()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (missing, "vision_model.post_layernorm.weight"),
        (misshapen, "take config.json and weights from one model"),
    ],
)
def test_weights_that_do_not_load_are_a_finding(
    opt: Sound, tmp_path: Path, change: Change, message: str
) -> None:
    found = findings_on(broken(opt.path, tmp_path, weights(change)))
    only_fails(opt.findings, found, "load", message)
    assert found["precision"].found == "activations comes first"


def test_a_download_cut_short_is_a_finding(opt: Sound, tmp_path: Path) -> None:
    def cut(directory: Path) -> None:
        file = directory / "qformer.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])

    found = findings_on(broken(opt.path, tmp_path, cut))
    only_fails(opt.findings, found, "load", "qformer.safetensors is damaged", "fetch it again")


def test_unused_weights_are_warned_of(opt: Sound, tmp_path: Path) -> None:
    def add(held: dict[str, Tensor]) -> None:
        held["language_projection.wieght"] = torch.zeros(2)
        held["qformer.embeddings.position_ids"] = torch.zeros(2)  # older files have such

    found = findings_on(broken(opt.path, tmp_path, weights(add)))
    assert found["unused-weights"].status == "warn"
    assert found["unused-weights"].found == (
        "1 tensor in the model's files is used by nothing (language_projection.wieght)"
    )
    assert {f.status for name, f in found.items() if name != "unused-weights"} == {"ok", "skipped"}


def test_an_untied_output_matrix_of_opt_is_found(opt: Sound, tmp_path: Path) -> None:
    def untie(held: dict[str, Tensor]) -> None:
        held[HEAD] = held[EMBEDDING].flip(0).clone()

    found = findings_on(broken(opt.path, tmp_path, weights(untie)))
    only_fails(opt.findings, found, "tied-embeddings", "lm_head", "tie_weights()")


def test_a_copy_of_the_embedding_is_as_good_as_tied(opt: Sound, tmp_path: Path) -> None:
    def copy(held: dict[str, Tensor]) -> None:
        held[HEAD] = held[EMBEDDING].clone()

    assert findings_on(broken(opt.path, tmp_path, weights(copy)))["tied-embeddings"].status == "ok"


def test_flan_t5_may_have_two_matrices(t5: Sound, tmp_path: Path) -> None:
    def untie(held: dict[str, Tensor]) -> None:
        held[HEAD] = held["language_model.shared.weight"].flip(0).clone()

    found = findings_on(broken(t5.path, tmp_path, weights(untie)))
    assert found["tied-embeddings"].found == "two matrices, as usual with T5"
    assert not [name for name, finding in found.items() if finding.status == "fail"]


def test_a_configuration_that_cannot_be_read_is_a_finding(opt: Sound, tmp_path: Path) -> None:
    strange = settings("config.json", vision_config__layer_norm_eps="small")
    found = findings_on(broken(opt.path, tmp_path, strange))
    assert found["files"].status == "fail"
    assert "layer_norm_eps" in found["files"].found
    rest = {f.status for name, f in found.items() if name not in ("packages", "files")}
    assert rest == {"skipped"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda place: (place / "config.json").write_text("{"), "not valid JSON"),
        (lambda place: (place / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda place: (place / "vision.safetensors").unlink(), "is incomplete: vision"),
        (settings("config.json", model_type="llava"), "holds LLaVA"),
        (settings("config.json", text_config__model_type="gpt2"), "language model gpt2"),
        (settings("processor_config.json", image_processor={}), "no image processor settings"),
    ],
)
def test_an_unreadable_model_has_that_finding_only(
    opt: Sound, tmp_path: Path, change: Break, message: str
) -> None:
    found = findings_on(broken(opt.path, tmp_path, change))
    assert list(found) == ["packages", "files"]
    assert found["files"].status == "fail"
    assert message in f"{found['files'].found} → {found['files'].remedy}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda place: (place / "tokenizer.json").write_text("{}"), "tokenizer in"),
        (lambda place: (place / "generation_config.json").write_text("["), "not valid JSON"),
        (settings("processor_config.json", image_processor__do_pad=True), "asks for do_pad"),
    ],
)
def test_files_that_cannot_be_read_are_a_finding(
    opt: Sound, tmp_path: Path, change: Break, message: str
) -> None:
    found = findings_on(broken(opt.path, tmp_path, change))
    assert found["files"].status == "fail"
    assert message in found["files"].found
    rest = {f.status for name, f in found.items() if name not in ("packages", "files")}
    assert rest == {"skipped"}


def test_two_faults_are_two_findings(opt: Sound, tmp_path: Path) -> None:
    change = both(
        settings("config.json", vision_config__layer_norm_eps=1e-5),
        settings("tokenizer_config.json", padding_side="right"),
    )
    directory = broken(opt.path, tmp_path, change)
    assert json.loads((directory / "config.json").read_text())["model_type"] == "blip-2"
    found = findings_on(directory)
    failed = [name for name, finding in found.items() if finding.status == "fail"]
    assert failed == ["vision-epsilon", "padding-side"]
