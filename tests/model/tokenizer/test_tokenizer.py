from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from blip2cli.model.checkpoint.embedded import EMBEDDED, embedded_path
from blip2cli.model.tokenizer.text import read_tokenizer
from blip2cli.model.tokenizer.tokenizer import PlainTokenizer, read_plain

TEXTS = (
    "",
    "a cat",
    " two  cats\nand a ball ",
    "</s>",
    "a <image> of <pad> ö 猫 🐈",
    "what? Answer:",
)


def same(path: Path) -> None:
    ours, theirs = read_plain(path), read_tokenizer(path)
    assert ours is not None
    assert not isinstance(theirs, PlainTokenizer)
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours(text)["input_ids"] == ids
        bare = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours(text, add_special_tokens=False)["input_ids"] == bare
        for skipped in (True, False):
            assert ours.decode(ids, skip_special_tokens=skipped) == theirs.decode(
                ids, skip_special_tokens=skipped
            )
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert len(ours) == len(theirs)
    assert ours.get_vocab() == theirs.get_vocab()


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_models_are_read_as_transformers_reads_them(name: str) -> None:
    same(embedded_path(name))


def test_what_a_file_says_of_padding_and_truncation_is_left_alone(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(embedded_path("tiny"), tmp_path / "copy"))
    said = json.loads((copy / "tokenizer.json").read_text())
    said["truncation"] = {
        "direction": "Right",
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (copy / "tokenizer.json").write_text(json.dumps(said))
    same(copy)


@pytest.mark.parametrize(
    "changed",
    [
        {"add_bos_token": False},
        {"clean_up_tokenization_spaces": True},
        {"split_special_tokens": True},
        {"pad_token": "<another>"},
        {"additional_special_tokens": ["a cat"]},
        {"added_tokens_decoder": {"640": {"content": "<new>", "special": True}}},
    ],
)
def test_what_transformers_would_change_is_left_to_it(
    changed: dict[str, object], tmp_path: Path
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(embedded_path("tiny") / name, tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert read_plain(tmp_path) is not None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | changed))
    assert read_plain(tmp_path) is None


def test_a_file_without_what_stands_around_a_text_is_left_to_it_too(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(embedded_path("tiny") / name, tmp_path)
    said = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(said | {"post_processor": None}))
    assert read_plain(tmp_path) is None
    (tmp_path / "tokenizer.json").unlink()
    assert read_plain(tmp_path) is None
