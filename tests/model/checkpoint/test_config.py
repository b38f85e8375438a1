from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from transformers import Blip2Config, OPTConfig, T5Config

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint import config as ours
from blip2cli.model.checkpoint.config import read_config
from blip2cli.model.families.opt.config import OptConfig
from blip2cli.model.families.t5 import config as t5


def test_defaults_are_those_of_transformers() -> None:
    theirs = Blip2Config()
    pairs: list[tuple[type[Any], Any]] = [
        (ours.VisionConfig, theirs.vision_config),
        (ours.QFormerConfig, theirs.qformer_config),
        (OptConfig, OPTConfig()),
        (t5.T5Config, T5Config()),
    ]
    # What follows from others there is None here until a file says it.
    derived = {
        "word_embed_proj_dim",
        "num_decoder_layers",
        "dense_act_fn",
        "is_gated_act",
        "tie_word_embeddings",
        "scale_decoder_outputs",
    }
    for kind, wanted in pairs:
        for field in fields(kind):
            if field.name not in derived:
                assert getattr(kind(), field.name) == getattr(wanted, field.name, None), field.name
    empty = read_config({})
    assert (empty.num_query_tokens, empty.image_text_hidden_size) == (
        theirs.num_query_tokens,
        theirs.image_text_hidden_size,
    )
    assert isinstance(empty.text_config, OptConfig)
    assert empty.image_token_index is theirs.image_token_index is None


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"feed_forward_proj": "gated-gelu"},
        {"feed_forward_proj": "gated-silu"},
        {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"},
        {"feed_forward_proj": "gated-gelu", "is_gated_act": True, "tie_word_embeddings": False},
        {"tie_word_embeddings": True},
        {"tie_word_embeddings": True, "scale_decoder_outputs": False},
        {"num_layers": 3},
        {"num_layers": 3, "num_decoder_layers": 2, "decoder_start_token_id": 0},
    ],
)
def test_t5_follows_transformers_in_what_is_not_written(said: dict[str, Any]) -> None:
    theirs = T5Config(**said)
    read = read_config({"text_config": {"model_type": "t5"} | said}).text_config
    assert isinstance(read, t5.T5Config)
    assert read.activation == theirs.dense_act_fn
    assert read.gated == theirs.is_gated_act
    assert read.scales_output == theirs.scale_decoder_outputs
    assert (read.num_decoder_layers or read.num_layers) == theirs.num_decoder_layers
    assert read.decoder_start_token_id == getattr(theirs, "decoder_start_token_id", None)


def test_a_whole_file_is_read_as_transformers_reads_it() -> None:
    written = Blip2Config(
        vision_config={"hidden_size": 64, "image_size": 56, "qkv_bias": False},
        qformer_config={"hidden_size": 32, "cross_attention_frequency": 3},
        text_config={"model_type": "opt", "hidden_size": 48, "word_embed_proj_dim": 24},
        num_query_tokens=5,
        image_token_index=77,
    ).to_dict()
    read = read_config(written)
    assert (read.vision_config.hidden_size, read.vision_config.image_size) == (64, 56)
    assert not read.vision_config.qkv_bias
    assert read.qformer_config.encoder_hidden_size == 64
    assert read.qformer_config.cross_attention_frequency == 3
    assert isinstance(read.text_config, OptConfig)
    assert (read.text_config.hidden_size, read.text_config.embed_width) == (48, 24)
    assert (read.num_query_tokens, read.image_token_index) == (5, 77)


def test_a_value_of_another_kind_is_named() -> None:
    with pytest.raises(ModelError, match=r"hidden_size: '64', where a value like 1408 belongs"):
        read_config({"vision_config": {"hidden_size": "64"}})
    assert read_config({"vision_config": {"layer_norm_eps": 0}}).vision_config.layer_norm_eps == 0
