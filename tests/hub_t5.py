"""Random checkpoints in the file layouts of ``Salesforce/blip2-flan-t5-xl`` on the hub.

Widths and depths are small; names of files, their contents, the vocabulary and the ids in them
are those of the published repository, but for spiece.model, which nothing reads beside
tokenizer.json, and for SentencePiece's own table of normal forms, for which NFKC stands. Two
ages: with the image token (since transformers 4.47) and before it.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from torch import nn
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration

from tests.checkpoints import random_model, small_config, t5_tokenizer
from tests.hub_files import (
    write_config,
    write_image_processor,
    write_json,
    write_older_config,
    write_processor,
    write_shards,
)

T5_QUERIES = 32
T5_IMAGE_TOKEN = 32100  # behind 32000 pieces and 100 sentinels
T5_END = 1
_PIECES = 32000
_VOCABULARY = 32128  # rows of the embedding, at every age
_SPECIAL = ("<pad>", "</s>", "<unk>")
_SENTINELS = [f"<extra_id_{number}>" for number in range(100)]
# Flan-T5's configuration but for its sizes. Of its activations the exact GELU is the one that
# acts: BLIP-2 was trained with it, and a reader that goes by feed_forward_proj takes another.
_TEXT = {
    "bos_token_id": 1,
    "classifier_dropout": 0.0,
    "decoder_start_token_id": 0,
    "dense_act_fn": "gelu",
    "dropout_rate": 0.1,
    "eos_token_id": T5_END,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "task_specific_params": {
        "summarization": {
            "early_stopping": True,
            "length_penalty": 2.0,
            "max_length": 200,
            "min_length": 30,
            "no_repeat_ngram_size": 3,
            "num_beams": 4,
            "prefix": "summarize: ",
        },
        "translation_en_to_de": {
            "early_stopping": True,
            "max_length": 300,
            "num_beams": 4,
            "prefix": "translate English to German: ",
        },
    },
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
_TIED = (
    "language_model.encoder.embed_tokens.weight",
    "language_model.decoder.embed_tokens.weight",
)


def published_t5(directory: Path, seed: int = 0) -> Path:
    """The layout since the image token, id 32100, which is in the tokenizer as well."""
    model = _model(T5_IMAGE_TOKEN, seed)
    directory.mkdir(parents=True, exist_ok=True)
    write_config(directory, model, {**_TEXT, "architectures": ["T5ForConditionalGeneration"]})
    write_image_processor(directory)
    write_processor(directory, T5_QUERIES)
    tokenizer = _rust_tokenizer()
    tokenizer.add_special_tokens([AddedToken("<image>", normalized=False, special=True)])
    assert tokenizer.token_to_id("<image>") == T5_IMAGE_TOKEN
    tokenizer.save(str(directory / "tokenizer.json"))
    _settings(directory, tokenizer)
    write_json(directory / "added_tokens.json", {"<image>": T5_IMAGE_TOKEN})
    write_shards(directory, model, tied=_TIED)
    return directory


def older_t5(directory: Path, seed: int = 0, pickled: bool = False) -> Path:
    """The layout before it, which has no image token anywhere.

    ``pickled``: as first published, without processor_config.json.
    """
    model = _model(None, seed)
    directory.mkdir(parents=True, exist_ok=True)
    write_older_config(directory, model, {**_TEXT, "_name_or_path": "google/flan-t5-xl"})
    write_image_processor(directory)
    if not pickled:
        write_processor(directory, None)
    write_json(directory / "tokenizer.json", _as_then(_rust_tokenizer()))
    _settings(directory, None)
    write_shards(directory, model, pickled, tied=_TIED)
    return directory


def t5_prompt_ids(text: str) -> list[int]:
    """What the published tokenizer makes of a prompt: ``</s>`` last."""
    return [*_rust_tokenizer().encode(text, add_special_tokens=False).ids, T5_END]


@lru_cache
def _pieces() -> list[tuple[str, float]]:
    """T5's size and special ids; all but the first of the pieces between are made up."""
    trained = json.loads(t5_tokenizer().backend_tokenizer.to_str())["model"]["vocab"]
    pieces = [(piece, score) for piece, score in trained if piece != "<image>"]
    assert tuple(piece for piece, _ in pieces[:3]) == _SPECIAL
    pieces += [(f"▁madeup{number:05d}", -100.0) for number in range(len(pieces), _PIECES)]
    return pieces + [(sentinel, 0.0) for sentinel in reversed(_SENTINELS)]


def _rust_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(_pieces(), unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", T5_END)]
    )
    words = (*_SPECIAL, *reversed(_SENTINELS))
    tokenizer.add_special_tokens(
        [AddedToken(word, normalized=False, special=True) for word in words]
    )
    return tokenizer


def _as_then(tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer.json as older libraries wrote it, in other words for the blank before a text."""
    value: dict[str, Any] = json.loads(tokenizer.to_str())
    old = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    value["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "WhitespaceSplit"}, {**old, "str_rep": "▁"}],
    }
    value["decoder"] = {**old, "str_rep": "▁"}
    del value["model"]["byte_fallback"]
    return value


def _settings(directory: Path, image: Tokenizer | None) -> None:
    """The tokenizer's settings; with an image token every added token is listed."""
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    named: dict[str, Any] = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    settings = {
        "additional_special_tokens": _SENTINELS,
        "extra_ids": 100,
        "model_max_length": 512,
        "processor_class": "Blip2Processor",
        "sp_model_kwargs": {},
        "tokenizer_class": "T5Tokenizer",
        **named,
    }
    if image is None:
        settings["name_or_path"] = "google/flan-t5-xl"
    else:
        settings["added_tokens_decoder"] = {
            str(number): {"content": added.content, "special": True, **token}
            for number, added in sorted(image.get_added_tokens_decoder().items())
        }
        named = {name: {"content": word, **token} for name, word in named.items()}
    write_json(directory / "tokenizer_config.json", settings)
    write_json(
        directory / "special_tokens_map.json", {"additional_special_tokens": _SENTINELS, **named}
    )


def _model(image_token: int | None, seed: int) -> Blip2ForConditionalGeneration:
    sizes = {
        "vocab_size": _VOCABULARY,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 2,
    }
    config = small_config(
        {**_TEXT, **sizes}, image_token_index=image_token, num_query_tokens=T5_QUERIES
    )
    model = random_model(config, seed)
    # Flan-T5 writes with other words than it reads, however transformers starts a model of it.
    noise = torch.randn((_VOCABULARY, 16), generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        noise[T5_END] *= 4  # so that it wins often, now early and now late
    model.language_model.lm_head.weight = nn.Parameter(0.5 * noise)
    return model
