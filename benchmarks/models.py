"""The models of the race: ``tiny`` as it is shipped, the others with random weights.

``mid`` has width 512 and 12 layers in each part, with OPT or with T5, or is an InstructBLIP with a
Llama (``mid-vicuna``). ``full`` has the shapes of
Salesforce/blip2-opt-2.7b (its published config.json says only what differs from the defaults),
3.7 billion weights in bfloat16; ``vit-g`` has six of its vision layers, and little else.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip2cli.model.checkpoint.embedded import embedded_path

# ``training`` is no part of the package: a script finds it only from the checkout's own folder.
sys.path.append(str(Path(__file__).resolve().parents[1]))
from training.build import build_tokenizer

NAMES = ("tiny", "mid-opt", "mid-t5", "mid-vicuna", "full", "vit-g")
# Of OPT, T5 and Llama; OPT's is its head as well.
HEADS = ("decoder.embed_tokens.weight", "shared.weight", "model.embed_tokens.weight")
OUTWARD = ("fc2.weight", "output.dense.weight", "output_query.dense.weight", "down_proj.weight")
SHARD = 2 << 30  # bytes
_WIDE = {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8}
_OPT = {
    "model_type": "opt",
    "hidden_size": 512,
    "word_embed_proj_dim": 512,
    "ffn_dim": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "vocab_size": 50304,
    "dropout": 0.0,
}
_T5 = {
    "model_type": "t5",
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 12,
    "num_decoder_layers": 12,
    "num_heads": 8,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
}
_LLAMA = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "vocab_size": 32064,
}
_FULL_OPT = {
    "model_type": "opt",
    "hidden_size": 2560,
    "word_embed_proj_dim": 2560,
    "ffn_dim": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 50304,
    "prefix": "</s>",
}
_TEXTS: dict[str, dict[str, Any]] = {
    "mid-opt": _OPT,
    "mid-t5": _T5,
    "mid-vicuna": _LLAMA,
    "full": _FULL_OPT,
    "vit-g": _OPT | {"num_hidden_layers": 1},
}


def build(name: str, folder: Path) -> Path:
    """The directory of the model ``name``; a random one is written below ``folder`` once."""
    if name == "tiny":
        return embedded_path("tiny")
    path = folder / name
    if not (path / "done").exists():
        path.mkdir(parents=True, exist_ok=True)
        large = name in ("full", "vit-g")
        _write(_config(name), path, torch.bfloat16 if large else torch.float32)
        (path / "done").touch()
    return path


def _config(name: str) -> Blip2Config | InstructBlipConfig:
    tokenizer = build_tokenizer()
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": None,  # texts end at their given length
    }
    text = _TEXTS[name]
    parts: dict[str, Any] = {}
    if name == "vit-g":
        parts = {
            "vision_config": {"num_hidden_layers": 6},
            "qformer_config": {"num_hidden_layers": 1},
        }
    elif name != "full":
        parts = {
            "vision_config": _WIDE | {"intermediate_size": 2048, "image_size": 224},
            "qformer_config": _WIDE | {"intermediate_size": 2048, "encoder_hidden_size": 512},
        }
    if name == "mid-vicuna":
        parts["qformer_config"]["vocab_size"] = len(_words())
        return InstructBlipConfig(
            text_config=text | ids,
            num_query_tokens=32,
            image_token_index=len(tokenizer),
            **parts,
        )
    return Blip2Config(
        text_config=text | ids,
        num_query_tokens=32,
        image_text_hidden_size=256,
        image_token_index=len(tokenizer),
        **parts,
    )


def _words() -> PreTrainedTokenizerFast:
    """The tokenizer of a Q-Former that reads prompts."""
    return PreTrainedTokenizerFast.from_pretrained(embedded_path("tiny-itm"))


def _write(config: Blip2Config | InstructBlipConfig, path: Path, dtype: torch.dtype) -> None:
    """Write random weights shard by shard, so that a large model never stands in memory whole."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(path)
    size = config.vision_config.image_size
    BlipImageProcessorPil(size={"height": size, "width": size}).save_pretrained(path)
    config.dtype = dtype
    kind: Any = Blip2ForConditionalGeneration
    if isinstance(config, InstructBlipConfig):
        kind = InstructBlipForConditionalGeneration
        _words().save_pretrained(path / "qformer_tokenizer")
    config.architectures = [kind.__name__]
    config.save_pretrained(path)
    with torch.device("meta"):
        model = kind(config)
    tied = set(model.all_tied_weights_keys)
    generator = torch.Generator().manual_seed(0)
    shard: dict[str, torch.Tensor] = {}
    names: dict[str, str] = {}
    count = filled = 0

    def flush() -> None:
        nonlocal count, filled
        file = f"model-{count:05d}.safetensors"
        save_file(shard, path / file, metadata={"format": "pt"})
        names.update(dict.fromkeys(shard, file))
        shard.clear()
        count, filled = count + 1, 0

    for name, weight in model.state_dict().items():
        if name in tied:
            continue
        shard[name] = _random(name, weight.shape, dtype, generator)
        filled += shard[name].nbytes
        if filled > SHARD:
            flush()
    flush()
    index = {"metadata": {}, "weight_map": names}
    (path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _random(
    name: str, shape: torch.Size, dtype: torch.dtype, generator: torch.Generator
) -> torch.Tensor:
    """Weights under which unlike images give unlike texts, and few choices of a word are close."""
    values = torch.empty(shape, dtype=dtype)
    if len(shape) < 2:
        near = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        return values.normal_(near, 0.02, generator=generator)
    fan_in = values[0].numel()
    if name.endswith("Attention.q.weight"):
        # T5 does not scale its scores: its queries are born small instead, as in transformers'
        # T5PreTrainedModel._init_weights. Else every attention is a hard choice that the last bit
        # decides.
        fan_in *= _T5["d_kv"]
    if name.endswith(HEADS):
        # Small, so that what the layers add outweighs the word that was read: a head that has the
        # same weights would say that word again. And of unlike lengths, as in trained models: the
        # largest score then stands out from thousands of others.
        lengths = torch.rand((shape[0], 1), generator=generator).clamp_(min=1e-3) ** -0.25
        return values.normal_(0, fan_in**-0.5 / 3, generator=generator).mul_(lengths)
    spread = 1.0 if "embed" in name or "query_tokens" in name else fan_in**-0.5
    values.normal_(0, spread, generator=generator)
    if name.endswith(OUTWARD):
        # What an activation gives is positive on the average; without this that would be the same
        # for all inputs, and layer by layer all images would become one.
        values -= values.mean(dim=1, keepdim=True)
    return values


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a model of the race.")
    parser.add_argument("name", choices=NAMES[1:])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(build(options.name, options.folder))
