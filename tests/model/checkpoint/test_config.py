from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from transformers import (
    Blip2Config,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    OPTConfig,
    T5Config,
)

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint import config as ours
from blip2cli.model.checkpoint.config import read_config
from blip2cli.model.families.opt.config import OptConfig
from blip2cli.model.families.t5 import config as t5

# Our sections and transformers' classes of them.
SECTIONS: list[tuple[type[Any], type[Any]]] = [
    (ours.Blip2Config, Blip2Config),
    (ours.VisionConfig, Blip2VisionConfig),
    (ours.QFormerConfig, Blip2QFormerConfig),
    (OptConfig, OPTConfig),
    (t5.T5Config, T5Config),
]
# Fields of transformers' that are not read, and why no result depends on them.
_TRAINING = "of training: dropped out, or drawn at random, is only there"
_OUTPUTS = "says what a Python call returns"
IGNORED = {
    "attention_dropout": _TRAINING,
    "attention_probs_dropout_prob": _TRAINING,
    "classifier_dropout": _TRAINING,
    "dropout": _TRAINING,
    "dropout_rate": _TRAINING,
    "hidden_dropout_prob": _TRAINING,
    "init_std": _TRAINING,
    "initializer_factor": _TRAINING,
    "initializer_range": _TRAINING,
    "layerdrop": _TRAINING,
    "id2label": "names of classes, which BLIP-2 has none of",
    "label2id": "names of classes, which BLIP-2 has none of",
    "problem_type": "kind of a classification, which BLIP-2 does none of",
    "output_attentions": _OUTPUTS,
    "output_hidden_states": _OUTPUTS,
    "return_dict": _OUTPUTS,
    "use_cache": "keys and values are always cached",
    "chunk_size_feed_forward": "rows of a feed-forward layer do not depend on one another",
    "dtype": "the precision is an option",
    "is_decoder": "follows from the family",
    "is_encoder_decoder": "follows from the family",
    "use_decoder_only_language_model": "follows from the family",
    "architectures": "read where the family is found out, see directory.py",
    "model_type": "read where the family is found out, see directory.py",
    "transformers_version": "who wrote the file",
    "_name_or_path": "where the model came from",
}


@pytest.mark.parametrize(("kind", "theirs"), SECTIONS)
def test_every_field_of_transformers_is_read_or_ignored_for_a_reason(
    kind: type[Any], theirs: type[Any]
) -> None:
    # A new release of transformers may bring a field that changes results: it fails this test.
    known = {field.name for field in fields(theirs)} | theirs().to_dict().keys()
    read = {field.name for field in fields(kind)}
    assert known - read - IGNORED.keys() == set()
    # Of ours, the family, T5's special tokens and a layer norm of ViT-L are no fields there.
    ours = {"family", "bos_token_id", "decoder_start_token_id", "pre_layernorm"}
    assert read - known <= ours


def test_defaults_are_those_of_transformers() -> None:
    theirs = Blip2Config()
    pairs = [(kind, their()) for kind, their in SECTIONS[1:]]
    # What follows from others there is None here until a file says it.
    derived = {
        "word_embed_proj_dim",
        "num_decoder_layers",
        "dense_act_fn",
        "is_gated_act",
        "tie_word_embeddings",
        "scale_decoder_outputs",
        "pre_layernorm",
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


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("text_config", {"bos_token_id": [2]}, r"bos_token_id: \[2\], where the id of a token"),
        ("text_config", {"pad_token_id": [1, 2]}, r"pad_token_id: \[1, 2\], where the id"),
        ("text_config", {"eos_token_id": "2"}, "eos_token_id: '2', where the id .*, or a list"),
        ("text_config", {"eos_token_id": [2, None]}, r"eos_token_id: \[2, None\], where"),
        ("text_config", {"eos_token_id": True}, "eos_token_id: True, where"),
        ("text_config", {"vocab_size": -1}, "vocab_size: -1, where a value like 50272 belongs"),
        ("vision_config", {"patch_size": 0}, "patch_size: 0, where a value like 14 belongs"),
        ("vision_config", {"patch_size": [14, 14]}, "where a value like 14 belongs"),
        ("vision_config", {"num_hidden_layers": True}, "num_hidden_layers: True, where"),
        ("qformer_config", {"layer_norm_eps": "1e-12"}, "layer_norm_eps: '1e-12', where"),
    ],
)
def test_values_that_transformers_would_not_take_are_named(
    section: str, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        read_config({section: values})


def test_start_tokens_of_t5_are_ids() -> None:
    for name in ("bos_token_id", "decoder_start_token_id"):
        with pytest.raises(ModelError, match=f"{name}: \\[0\\], where the id of a token belongs"):
            read_config({"text_config": {"model_type": "t5", name: [0]}})


def test_image_tokens_are_ids() -> None:
    for name in ("image_token_index", "image_token_id"):
        with pytest.raises(ModelError, match="image_token_index: 'x', where the id of a token"):
            read_config({name: "x"})


def test_what_is_null_has_its_default() -> None:
    nulls = read_config(
        {
            "num_query_tokens": None,
            "image_text_hidden_size": None,
            "qformer_config": None,
            "vision_config": {"hidden_size": None},
            "text_config": {"pad_token_id": None},
        }
    )
    assert (nulls.num_query_tokens, nulls.image_text_hidden_size) == (32, 256)
    assert nulls.vision_config == ours.VisionConfig()
    assert nulls.text_config.pad_token_id is None  # an id that is none is something to say


@pytest.mark.parametrize("size", ["224", 224.0, -1, True, [224], [224, 0], None])
def test_sizes_of_images_that_are_none_are_named(size: object) -> None:
    if size is None:
        assert ours.sides(read_config({"vision_config": {"image_size": size}}).vision_config) == (
            224,
            224,
        )
        return
    with pytest.raises(ModelError, match=r"image_size: .*, where pixels belong"):
        ours.sides(ours.VisionConfig(image_size=size))


def test_ends_of_texts() -> None:
    for value, ends in ((2, (2,)), ([2, 50118, 2], (2, 50118)), (None, ()), ([], ()), (10**6, ())):
        text = read_config({"text_config": {"eos_token_id": value}}).text_config
        assert text.end_tokens == ends
