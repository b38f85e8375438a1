"""Broken retrieval models are found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from blip2cli.doctor import retrieval
from blip2cli.doctor.pictures import Picture
from tests.doctor.broken_checkpoints import (
    Break,
    both,
    broken,
    findings_on,
    only_fails,
    settings,
    under_test,
    weights,
)
from tests.doctor.conftest import Sound

CONFIG, PROCESSOR = "config.json", "processor_config.json"


def cut(held: dict[str, Tensor]) -> None:
    name = "embeddings.word_embeddings.weight"
    held[name] = held[name][:60].clone()


def without_cls(directory: Path) -> None:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])
    tokenizer.save(str(directory / "tokenizer.json"))


def zeroed(*names: str) -> Break:
    def change(held: dict[str, Tensor]) -> None:
        for name in names:
            hits = [key for key in held if name in key]
            assert hits
            for key in hits:
                held[key].zero_()

    return weights(change)


@pytest.mark.parametrize(
    ("change", "check", "message"),
    [
        (
            settings(CONFIG, qformer_config__use_qformer_text_input=False),
            "text-input",
            "set use_qformer_text_input to true",
        ),
        (
            settings(CONFIG, image_text_hidden_size=24),
            "projections",
            "set image_text_hidden_size to 16",
        ),
        (
            both(settings(CONFIG, qformer_config__vocab_size=60), weights(cut)),
            "embedding-rows",
            "60 rows (vocab_size in qformer_config)",
        ),
        (settings(CONFIG, image_token_index=None), "image-token", "set image_token_index to 101"),
        (settings(PROCESSOR, num_query_tokens=None), "query-tokens", "set num_query_tokens to 12"),
        (settings(PROCESSOR, num_query_tokens=11), "query-tokens", "wrong beginning"),
        (settings("tokenizer_config.json", padding_side="left"), "padding-side", "to right in"),
        (without_cls, "prompt-tokens", "[CLS] and [SEP]"),
        (settings(CONFIG, vision_config__layer_norm_eps=1e-5), "vision-epsilon", "1e-06"),
        (zeroed("itm_head.weight"), "image-used", "weights of itm_head"),
        (zeroed("vision_projection.weight"), "image-used", "the contrastive scores are the same"),
        (zeroed("vision_model.post_layernorm.weight"), "image-used", "behind the vision encoder"),
    ],
)
def test_a_fault_is_found(
    itm: Sound, tmp_path: Path, change: Break, check: str, message: str
) -> None:
    found = findings_on(broken(itm.path, tmp_path, change))
    failed = [name for name, finding in found.items() if finding.status == "fail"]
    if check == "image-used":  # a constant head ignores texts as well
        assert set(failed) <= {"image-used", "text-used"}
        assert message in f"{found[check].found} → {found[check].remedy}"
    else:
        only_fails(itm.findings, found, check, message)


def test_texts_that_make_no_difference_are_found(itm: Sound, tmp_path: Path) -> None:
    found = findings_on(broken(itm.path, tmp_path, zeroed("text_projection.weight")))
    only_fails(itm.findings, found, "text-used", "the contrastive scores are the same")
    assert "text_projection" in (found["text-used"].remedy or "")


def test_no_check_of_a_language_model_is_made(itm: Sound) -> None:
    assert not {"end-token", "t5-settings", "tied-embeddings", "known-caption"} & set(itm.findings)
    assert itm.findings["transformers"].status == "ok"


def test_scores_other_than_transformers_are_found(
    itm: Sound,
    pictures: tuple[Picture, ...],
) -> None:
    subject = under_test(itm.path, torch.float32, pictures)
    assert retrieval.transformers_agrees(subject).status == "ok"
    odd = under_test(itm.path, torch.float32, pictures)
    with torch.no_grad():
        odd.model.model.itm_head.weight.mul_(1.1)
    assert retrieval.transformers_agrees(odd).status == "fail"
