"""Random checkpoints in the file layouts of ``Salesforce/blip2-opt-2.7b`` on the hub.

Widths and depths are small; names of files, their contents, the vocabulary and the ids in them
are those of the published repository. Two ages: with the image token (since transformers 4.47)
and before it.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration

from tests.checkpoints import QUERIES, bpe, opt_text, random_model, small_config
from tests.hub_files import (
    write_config,
    write_image_processor,
    write_json,
    write_older_config,
    write_processor,
    write_shards,
)

VOCABULARY = 50265  # OPT's
IMAGE_TOKEN = 50265
NEWLINE = 50118  # "\n", where published texts end
# The language model's configuration but for its sizes.
_TEXT = {
    "_name_or_path": "facebook/opt-2.7b",
    "activation_dropout": 0.0,
    "eos_token_id": NEWLINE,
    "model_type": "opt",
    "prefix": "</s>",
    "torch_dtype": "float16",
}
_TIED = ("language_model.lm_head.weight",)


def published_opt(directory: Path, seed: int = 0) -> Path:
    """The layout since the image token: id 50265, vocabulary 50304, two safetensors shards."""
    model = _model(50304, IMAGE_TOKEN, seed)
    directory.mkdir(parents=True, exist_ok=True)
    write_config(directory, model, {**_TEXT, "architectures": ["OPTForCausalLM"]})
    write_image_processor(directory)
    write_processor(directory, QUERIES)
    _tokenizer(directory, image=True)
    _tokenizer_json(directory)
    write_shards(directory, model, tied=_TIED)
    return directory


def older_opt(directory: Path, seed: int = 0, pickled: bool = False) -> Path:
    """The layout before it: vocabulary 50272, no image token anywhere, no tokenizer.json."""
    model = _model(50272, None, seed)
    directory.mkdir(parents=True, exist_ok=True)
    ids = {"bos_token_id": 2, "is_encoder_decoder": False, "pad_token_id": 1}
    write_older_config(directory, model, {**_TEXT, **ids})
    write_image_processor(directory)
    write_processor(directory, None)
    _tokenizer(directory, image=False)
    write_shards(directory, model, pickled, tied=_TIED)
    return directory


def prompt_ids(text: str) -> list[int]:
    """What the published tokenizer makes of a prompt: ``</s>`` first."""
    return [2, *_rust_tokenizer().encode(text, add_special_tokens=False).ids]


@lru_cache
def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """OPT's size and special ids; the words between are made up."""
    trained = json.loads(bpe().to_str())["model"]
    words = [word for word in trained["vocab"] if trained["vocab"][word] > 3 and word != "Ċ"]
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "Ċ": NEWLINE}
    free = (number for number in range(4, VOCABULARY) if number != NEWLINE)
    for word in words:
        vocabulary[word] = next(free)
    for number in free:
        vocabulary[f"madeup{number:05d}"] = number
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in trained["merges"]]
    return vocabulary, merges


def _rust_tokenizer() -> Tokenizer:
    vocabulary, merges = _vocabulary()
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", 2)]
    )
    return tokenizer


def _tokenizer_json(directory: Path) -> None:
    tokenizer = _rust_tokenizer()
    special = {"normalized": True, "special": True}
    tokenizer.add_special_tokens([AddedToken(word, **special) for word in ("<pad>", "</s>")])
    tokenizer.add_special_tokens([AddedToken("<image>", normalized=False, special=True)])
    assert tokenizer.token_to_id("<image>") == IMAGE_TOKEN
    tokenizer.save(str(directory / "tokenizer.json"))


def _tokenizer(directory: Path, image: bool) -> None:
    vocabulary, merges = _vocabulary()
    write_json(directory / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    token = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    added = {
        "1": {"content": "<pad>", "special": True, **token},
        "2": {"content": "</s>", "special": True, **token},
    }
    if image:
        added[str(IMAGE_TOKEN)] = {"content": "<image>", "special": True, **token}
        write_json(directory / "added_tokens.json", {"<image>": IMAGE_TOKEN})
    write_json(
        directory / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_prefix_space": False,
            "added_tokens_decoder": added,
            "bos_token": "</s>",
            "clean_up_tokenization_spaces": True,
            "eos_token": "</s>",
            "errors": "replace",
            "model_max_length": 1000000000000000019884624838656,
            "pad_token": "<pad>",
            "processor_class": "Blip2Processor",
            "tokenizer_class": "GPT2Tokenizer",
            "unk_token": "</s>",
        },
    )
    named = {"content": "</s>", **token}
    write_json(
        directory / "special_tokens_map.json",
        {
            "bos_token": named,
            "eos_token": named,
            "pad_token": {"content": "<pad>", **token},
            "unk_token": named,
        },
    )


def _model(vocabulary: int, image_token: int | None, seed: int) -> Blip2ForConditionalGeneration:
    text = opt_text(
        vocabulary, NEWLINE, hidden_size=16, word_embed_proj_dim=16, num_attention_heads=1
    )
    model = random_model(small_config(text, image_token_index=image_token), seed)
    with torch.no_grad():  # against so large a vocabulary the end token needs more to win
        model.get_output_embeddings().weight[NEWLINE] *= 2
    return model
