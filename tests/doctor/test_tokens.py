"""Wrong tokens are found, each by its own check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from blip2cli.doctor.pictures import Picture
from blip2cli.doctor.tokens import PROBE, prompt_tokens
from tests.doctor.broken_checkpoints import (
    REMOVED,
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
from tests.hub_checkpoints import older_opt, published_opt
from tests.hub_t5 import older_t5, published_t5

CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER, TOKENIZER_SETTINGS = "tokenizer.json", "tokenizer_config.json"
EMBEDDING = "language_model.model.decoder.embed_tokens.weight"


def cut(held: dict[str, Tensor]) -> None:
    held[EMBEDDING] = held[EMBEDDING][:600].clone()


@pytest.mark.parametrize(
    ("change", "check", "message"),
    [
        (settings(CONFIG, image_token_index=None), "image-token", "set image_token_index to 639"),
        (
            settings(CONFIG, image_token_index=100_000),
            "image-token",
            "set image_token_index to 639",
        ),
        (settings(CONFIG, image_token_index=-1), "image-token", "index error"),
        (settings(CONFIG, image_token_index=638), "image-token", "ignores the image"),
        (
            both(settings(CONFIG, text_config__vocab_size=600), weights(cut)),
            "embedding-rows",
            "resize_token_embeddings(640)",
        ),
        (
            settings(CONFIG, text_config__eos_token_id=2),
            "end-token",
            "eos_token_id is 2 in text_config of config.json, but",
        ),
        (settings(CONFIG, text_config__eos_token_id=None), "end-token", "set eos_token_id to 202"),
        (
            settings(GENERATION, eos_token_id=2),
            "end-token",
            "eos_token_id is 2 in generation_config.json, but",
        ),
        (
            settings(GENERATION, eos_token_id=REMOVED),
            "end-token",
            "eos_token_id is None in generation_config.json",
        ),
        (
            settings(TOKENIZER_SETTINGS, padding_side="right"),
            "padding-side",
            "set padding_side to left in tokenizer_config.json",
        ),
        (settings(TOKENIZER, post_processor=None), "prompt-tokens", "put token 2 in front"),
    ],
)
def test_a_wrong_token_fails_its_own_check_only(
    opt: Sound, tmp_path: Path, change: Break, check: str, message: str
) -> None:
    only_fails(opt.findings, findings_on(broken(opt.path, tmp_path, change)), check, message)


@pytest.mark.parametrize(
    ("change", "check", "message"),
    [
        (settings(CONFIG, image_token_index=None), "image-token", "TypeError"),
        (settings(TOKENIZER_SETTINGS, padding_side="left"), "padding-side", "side to right in"),
        (settings(TOKENIZER, post_processor=None), "prompt-tokens", "put token 1 at the end"),
        (settings(CONFIG, text_config__eos_token_id=5), "end-token", "set eos_token_id to 1 in"),
    ],
)
def test_the_same_with_t5(
    t5: Sound, tmp_path: Path, change: Break, check: str, message: str
) -> None:
    only_fails(t5.findings, findings_on(broken(t5.path, tmp_path, change)), check, message)


def test_several_end_tokens_may_hold_the_newline(opt: Sound, tmp_path: Path) -> None:
    several = both(
        settings(CONFIG, text_config__eos_token_id=[2, 202]),
        settings(GENERATION, eos_token_id=[202, 2]),
    )
    assert findings_on(broken(opt.path, tmp_path, several))["end-token"].status == "ok"


def test_a_tokenizer_without_a_newline_is_found(opt: Sound, tmp_path: Path) -> None:
    def rename(directory: Path) -> None:
        file = directory / TOKENIZER
        whole = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = whole["model"]["vocab"]
        vocabulary["newline"] = vocabulary.pop("Ċ")
        file.write_text(json.dumps(whole), encoding="utf-8")

    found = findings_on(broken(opt.path, tmp_path, rename))
    only_fails(opt.findings, found, "end-token", "is not one token", "tokenizer files")


def test_checkpoints_as_published_pass(tmp_path: Path) -> None:
    found = findings_on(published_opt(tmp_path / "published"))
    assert found["image-token"].found == "<image> is 50265"
    assert found["end-token"].found == 'the newline "\\n", token 50118'
    # They do not set the padding side, and transformers' default is the wrong one for OPT.
    warned = [name for name, finding in found.items() if finding.status == "warn"]
    assert warned == ["padding-side"]
    assert not [name for name, finding in found.items() if finding.status == "fail"]


def test_checkpoints_from_before_the_image_token_pass_with_warnings(tmp_path: Path) -> None:
    found = findings_on(older_opt(tmp_path / "older", pickled=True))
    warned = [name for name, finding in found.items() if finding.status == "warn"]
    assert warned == ["query-tokens", "image-token", "padding-side"]
    # OPT's 50272 rows hold it.
    assert found["image-token"].remedy == (
        "add <image> to the tokenizer, and set image_token_index to 50265 in config.json"
    )
    assert found["transformers"].status == "ok"
    assert found["unused-weights"].status == "ok"
    assert not [name for name, finding in found.items() if finding.status == "fail"]


def test_flan_t5_as_published_passes_without_a_warning(tmp_path: Path) -> None:
    found = findings_on(published_t5(tmp_path / "published"))
    assert found["image-token"].found == "<image> is 32100"
    assert found["embedding-rows"].found == "32128 rows for 32101 tokens"
    assert found["t5-settings"].found == "gelu, decoder starts from 0"
    assert {finding.status for finding in found.values()} <= {"ok", "skipped"}


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
def test_flan_t5_from_before_the_image_token_passes_with_warnings(
    tmp_path: Path, pickled: bool
) -> None:
    found = findings_on(older_t5(tmp_path / "older", pickled=pickled))
    warned = [name for name, finding in found.items() if finding.status == "warn"]
    assert warned == ["query-tokens", "image-token"]
    assert "image_token_index to 32100" in (found["image-token"].remedy or "")
    assert "resize" not in (found["image-token"].remedy or "")
    assert found["transformers"].status == "ok"
    assert not [name for name, finding in found.items() if finding.status == "fail"]


def test_prompts_that_only_other_loaders_tokenize_wrongly_are_warned_of(
    opt: Sound, pictures: tuple[Picture, ...]
) -> None:
    subject = under_test(opt.path, torch.float32, pictures)
    theirs = subject.tokenizer
    # Like a loader that ignores the post_processor of tokenizer.json.
    subject.tokenizer = lambda text: theirs(text, add_special_tokens=False)
    outcome = prompt_tokens(subject)
    assert outcome.status == "warn"
    ids = list(subject.codec.encode(PROBE))
    assert outcome.found.endswith(f"as {ids}, transformers' own loader as {ids[1:]}")
    assert "PreTrainedTokenizerFast" in (outcome.remedy or "")
