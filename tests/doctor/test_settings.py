"""Wrong settings are found, each by its own check."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from blip2cli.doctor.settings import pixel_values, t5_settings
from blip2cli.model.families import OPT
from tests.doctor.broken_checkpoints import (
    REMOVED,
    Break,
    both,
    broken,
    findings_on,
    only_fails,
    settings,
    weights,
)
from tests.doctor.conftest import Sound

CONFIG, PROCESSOR = "config.json", "processor_config.json"


@pytest.mark.parametrize(
    ("change", "check", "message"),
    [
        (settings(CONFIG, vision_config__layer_norm_eps=1e-5), "vision-epsilon", "to 1e-06 under"),
        (
            settings(CONFIG, qformer_config__layer_norm_eps=1e-5),
            "qformer-epsilon",
            "set layer_norm_eps to 1e-12 under qformer_config",
        ),
        (
            settings(PROCESSOR, image_processor__size={"height": 96, "width": 96}),
            "image-size",
            "set size in processor_config.json to height 112 and width 112",
        ),
        (
            settings(PROCESSOR, image_processor__image_mean=[0.5, 0.5, 0.5]),
            "pixel-values",
            "set CLIP's values in processor_config.json",
        ),
        (settings(PROCESSOR, image_processor__image_std=[1, 1, 1]), "pixel-values", "image_std 1"),
        (settings(PROCESSOR, image_processor__do_normalize=False), "pixel-values", "image_mean 0"),
        (settings(PROCESSOR, image_processor__do_rescale=False), "pixel-values", "rescale_factor"),
        (settings(PROCESSOR, num_query_tokens=8), "query-tokens", "set num_query_tokens to 16"),
        (settings(PROCESSOR, num_query_tokens=REMOVED), "query-tokens", "ignores the image"),
    ],
)
def test_a_wrong_setting_fails_its_own_check_only(
    opt: Sound, tmp_path: Path, change: Break, check: str, message: str
) -> None:
    only_fails(opt.findings, findings_on(broken(opt.path, tmp_path, change)), check, message)


def test_scores_scaled_as_in_t5_are_found_where_there_are_two_matrices(
    t5: Sound, tmp_path: Path
) -> None:
    def untie(held: dict[str, Tensor]) -> None:
        shared = held["language_model.shared.weight"]
        held["language_model.lm_head.weight"] = shared.flip(0).clone()

    scaled = settings(CONFIG, text_config__scale_decoder_outputs=True)
    found = findings_on(broken(t5.path, tmp_path, both(scaled, weights(untie))))
    only_fails(t5.findings, found, "t5-settings", "tie_word_embeddings to false")
    # With one matrix that is T5's own way, and tiny-t5's.
    tied = findings_on(broken(t5.path, tmp_path / "tied", scaled))
    assert tied["t5-settings"].status == "ok"


def test_another_resampling_filter_is_a_warning(opt: Sound, tmp_path: Path) -> None:
    found = findings_on(
        broken(opt.path, tmp_path, settings(PROCESSOR, image_processor__resample=2))
    )
    assert found.pop("pixel-values").status == "warn"
    assert {finding.status for finding in found.values()} == {"ok", "skipped"}


def flan_t5(**text: Any) -> Any:
    config = {
        "decoder_start_token_id": 0,
        "is_gated_act": True,
        "scale_decoder_outputs": False,
        "vocab_size": 32128,
        "d_model": 2048,
        "dense_act_fn": "gelu",
    }
    weight = SimpleNamespace(weight=torch.zeros(2))
    other = SimpleNamespace(weight=torch.ones(2))
    model = SimpleNamespace(input_embeddings=weight, language_model=SimpleNamespace(lm_head=other))
    return SimpleNamespace(
        config=SimpleNamespace(text_config=SimpleNamespace(**config | text)),
        model=SimpleNamespace(model=model),
    )


def test_the_published_flan_t5_wants_gelu() -> None:
    assert t5_settings(flan_t5()).status == "ok"
    wrong = t5_settings(flan_t5(dense_act_fn="gelu_new"))
    assert (wrong.status, wrong.remedy) == (
        "warn",
        "set dense_act_fn to gelu in text_config of config.json",
    )
    assert t5_settings(flan_t5(d_model=32, dense_act_fn="gelu_new")).status == "ok"
    assert t5_settings(flan_t5(decoder_start_token_id=None)).status == "warn"
    assert t5_settings(flan_t5(scale_decoder_outputs=True)).status == "fail"


def test_values_that_differ_by_rounding_are_the_same(opt: Sound, tmp_path: Path) -> None:
    rounded = [0.4814547, 0.4578275, 0.4082107]
    change = settings(PROCESSOR, image_processor__image_mean=rounded)
    directory = broken(opt.path, tmp_path, change)
    from blip2cli.doctor.model_under_test import ModelUnderTest
    from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
    from blip2cli.model.placement.dtype import place

    checkpoint = inspect_checkpoint(directory)
    subject = ModelUnderTest("m", checkpoint, place("cpu", "float32", OPT, 1), ())
    assert subject.spec.mean == tuple(rounded)
    assert pixel_values(subject).status == "ok"
