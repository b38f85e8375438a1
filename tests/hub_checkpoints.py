"""Random checkpoints in the file layouts of ``Salesforce/blip2-opt-2.7b`` on the hub.

Widths and depths are small; names of files, their contents, the vocabulary and the ids in them
are those of the published repository. Two ages: with the image token (since transformers 4.47)
and before it.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration

from tests.checkpoints import IMAGE_SIZE, QUERIES, bpe, opt_text, random_model, small_config

VOCABULARY = 50265  # OPT's
IMAGE_TOKEN = 50265
NEWLINE = 50118  # "\n", where published texts end
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]


def published_opt(directory: Path, seed: int = 0) -> Path:
    """The layout since the image token: id 50265, vocabulary 50304, two safetensors shards."""
    model = _model(50304, IMAGE_TOKEN, seed)
    directory.mkdir(parents=True, exist_ok=True)
    _json(
        directory / "config.json",
        {
            "architectures": ["Blip2ForConditionalGeneration"],
            "image_text_hidden_size": 256,
            "image_token_index": IMAGE_TOKEN,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "model_type": "blip-2",
            "num_query_tokens": QUERIES,
            "qformer_config": {
                "classifier_dropout": None,
                "model_type": "blip_2_qformer",
                **_sizes(model.config.qformer_config.to_dict()),
            },
            "text_config": {
                "_name_or_path": "facebook/opt-2.7b",
                "activation_dropout": 0.0,
                "architectures": ["OPTForCausalLM"],
                "eos_token_id": NEWLINE,
                "model_type": "opt",
                "prefix": "</s>",
                "torch_dtype": "float16",
                "vocab_size": 50304,
                "word_embed_proj_dim": 16,
                **_sizes(model.config.text_config.to_dict()),
            },
            "torch_dtype": "float32",
            "transformers_version": "4.47.0.dev0",
            "use_decoder_only_language_model": True,
            "vision_config": {
                "dropout": 0.0,
                "initializer_factor": 1.0,
                "model_type": "blip_2_vision_model",
                "num_channels": 3,
                "projection_dim": 512,
                **_sizes(model.config.vision_config.to_dict()),
            },
        },
    )
    _json(
        directory / "generation_config.json",
        {
            "_from_model_config": True,
            "bos_token_id": 2,
            "eos_token_id": NEWLINE,
            "pad_token_id": 1,
            "transformers_version": "4.47.0.dev0",
        },
    )
    _processor(directory, QUERIES)
    _tokenizer(directory, image=True)
    _tokenizer_json(directory)
    _shards(directory, model, "model", "safetensors")
    return directory


def older_opt(directory: Path, seed: int = 0, pickled: bool = False) -> Path:
    """The layout before it: vocabulary 50272, no image token anywhere, no tokenizer.json."""
    model = _model(50272, None, seed)
    directory.mkdir(parents=True, exist_ok=True)
    text = _sizes(model.config.text_config.to_dict())
    _json(
        directory / "config.json",
        {
            "architectures": ["Blip2ForConditionalGeneration"],
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "model_type": "blip-2",
            "num_query_tokens": QUERIES,
            "qformer_config": _sizes(model.config.qformer_config.to_dict())
            | {"model_type": "blip_2_qformer", "classifier_dropout": None},
            # At that age sub-configurations were written out whole, generation settings too.
            "text_config": text
            | {
                "_name_or_path": "facebook/opt-2.7b",
                "activation_dropout": 0.0,
                "add_cross_attention": False,
                "bos_token_id": 2,
                "do_sample": False,
                "early_stopping": False,
                "eos_token_id": NEWLINE,
                "is_encoder_decoder": False,
                "length_penalty": 1.0,
                "max_length": 20,
                "min_length": 0,
                "model_type": "opt",
                "no_repeat_ngram_size": 0,
                "num_beams": 1,
                "num_return_sequences": 1,
                "pad_token_id": 1,
                "prefix": "</s>",
                "repetition_penalty": 1.0,
                "temperature": 1.0,
                "top_k": 50,
                "top_p": 1.0,
                "torch_dtype": "float16",
                "transformers_version": "4.27.0.dev0",
                "vocab_size": 50272,
                "word_embed_proj_dim": 16,
            },
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "transformers_version": None,
            "use_decoder_only_language_model": True,
            "vision_config": _sizes(model.config.vision_config.to_dict())
            | {"model_type": "blip_2_vision_model", "dropout": 0.0, "num_channels": 3},
        },
    )
    _processor(directory, None)
    _tokenizer(directory, image=False)
    if pickled:
        _shards(directory, model, "pytorch_model", "bin")
    else:
        _shards(directory, model, "model", "safetensors")
    return directory


def reference(directory: Path) -> Blip2ForConditionalGeneration:
    """transformers' own model of the same weights."""
    return Blip2ForConditionalGeneration.from_pretrained(directory).eval()


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
    _json(directory / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    token = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    added = {
        "1": {"content": "<pad>", "special": True, **token},
        "2": {"content": "</s>", "special": True, **token},
    }
    if image:
        added[str(IMAGE_TOKEN)] = {"content": "<image>", "special": True, **token}
        _json(directory / "added_tokens.json", {"<image>": IMAGE_TOKEN})
    _json(
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
    _json(
        directory / "special_tokens_map.json",
        {
            "bos_token": named,
            "eos_token": named,
            "pad_token": {"content": "<pad>", **token},
            "unk_token": named,
        },
    )


def _processor(directory: Path, queries: int | None) -> None:
    _json(
        directory / "preprocessor_config.json",
        {
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": MEAN,
            "image_processor_type": "BlipImageProcessor",
            "image_std": STD,
            "processor_class": "Blip2Processor",
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        },
    )
    _json(
        directory / "processor_config.json",
        {"num_query_tokens": queries, "processor_class": "Blip2Processor"},
    )


def _model(vocabulary: int, image_token: int | None, seed: int) -> Blip2ForConditionalGeneration:
    text = opt_text(
        vocabulary, NEWLINE, hidden_size=16, word_embed_proj_dim=16, num_attention_heads=1
    )
    model = random_model(small_config(text, image_token_index=image_token), seed)
    with torch.no_grad():  # against so large a vocabulary the end token needs more to win
        model.get_output_embeddings().weight[NEWLINE] *= 2
    return model


def _sizes(config: dict[str, Any]) -> dict[str, Any]:
    """The entries that make it small."""
    names = (
        "hidden_size",
        "intermediate_size",
        "ffn_dim",
        "num_hidden_layers",
        "num_attention_heads",
        "image_size",
        "patch_size",
        "encoder_hidden_size",
        "max_position_embeddings",
    )
    return {name: config[name] for name in names if name in config}


def _shards(directory: Path, model: Blip2ForConditionalGeneration, stem: str, suffix: str) -> None:
    """Save in two shards with their index, every weight under its own name."""
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    if suffix == "safetensors":
        weights.pop("language_model.lm_head.weight")  # tied, and saved once
    names = list(weights)
    index: dict[str, str] = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"{stem}-{number:05d}-of-00002.{suffix}"
        index |= dict.fromkeys(part, file)
        shard = {name: weights[name] for name in part}
        if suffix == "safetensors":
            save_file(shard, str(directory / file), metadata={"format": "pt"})
        else:
            torch.save(shard, directory / file)
    size = sum(weight.numel() * 4 for weight in weights.values())
    _json(
        directory / f"{stem}.{suffix}.index.json",
        {"metadata": {"total_size": size}, "weight_map": index},
    )


def _json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
