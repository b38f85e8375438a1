from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.tokenizer.text import TextCodec, load_codec
from blip2cli.system.library_logging import silence_libraries
from tests.hub_checkpoints import older_opt, prompt_ids, published_opt
from tests.hub_t5 import older_t5
from tests.model.conftest import Pair


def codec(directory: Path) -> TextCodec:
    from transformers.models.blip_2.configuration_blip_2 import Blip2Config

    with silence_libraries():
        config = Blip2Config.from_pretrained(directory)
        return load_codec(inspect_checkpoint(directory), config.text_config)


def test_opt_prompts_begin_with_the_begin_token(opt: Pair) -> None:
    ids = opt.ours.codec.encode("a cat")
    assert ids[0] == 2
    assert ids.count(2) == 1
    assert opt.ours.codec.decode(ids) == "a cat"
    assert opt.ours.codec.encode(None) == opt.ours.codec.encode("") == (2,)


def test_t5_prompts_end_with_the_end_token(t5: Pair) -> None:
    ids = t5.ours.codec.encode("a cat")
    assert ids[-1] == 1
    assert t5.ours.codec.decode(ids) == "a cat"
    assert t5.ours.codec.encode(None) == t5.ours.codec.encode("") == (1,)


def test_begin_token_is_there_in_every_published_form(tmp_path: Path) -> None:
    text = "Question: what is left of the dog? Answer:"
    published = published_opt(tmp_path / "published")
    assert codec(published).encode(text) == tuple(prompt_ids(text))
    # vocab.json and merges.txt alone, as OPT itself is published.
    older = older_opt(tmp_path / "older")
    assert not (older / "tokenizer.json").exists()
    assert codec(older).encode(text) == tuple(prompt_ids(text))
    # A tokenizer.json whose post-processor forgot it, settings that ask for it.
    plain = Path(shutil.copytree(published, tmp_path / "plain"))
    tokenizer = json.loads((plain / "tokenizer.json").read_text())
    tokenizer["post_processor"] = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": False,
        "use_regex": True,
    }
    (plain / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert codec(plain).encode(text) == tuple(prompt_ids(text))


def test_a_sentencepiece_model_alone_says_what_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = older_t5(tmp_path / "older")
    (directory / "tokenizer.json").unlink()
    # Its first piece, <pad>, in SentencePiece's own format.
    (directory / "spiece.model").write_bytes(b"\n\x0c\n\x05<pad>\x15\0\0\0\0")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # as where it is not installed
    with pytest.raises(ModelError, match=r"tokenizer\.json; pip install sentencepiece protobuf"):
        codec(directory)


def test_decoding_drops_special_tokens_and_outer_space(opt: Pair) -> None:
    codec = opt.ours.codec
    inner = codec.encode(" a cat ")[1:]
    newline = opt.theirs.config.text_config.eos_token_id
    assert codec.decode([2, *inner, newline, 1]) == "a cat"
