"""Small random InstructBLIP checkpoints, written to disk in transformers' own layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers.models.instructblip.configuration_instructblip import InstructBlipConfig
from transformers.models.instructblip.modeling_instructblip import (
    InstructBlipForConditionalGeneration,
)
from transformers.models.instructblip.processing_instructblip import InstructBlipProcessor
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

from tests.checkpoints import (
    IMAGE_SIZE,
    LINES,
    QUERIES,
    WIDTH,
    bert_tokenizer,
    image_processor,
    random_weights,
    save,
    t5_tokenizer,
)

BYTES = [f"<0x{number:02X}>" for number in range(256)]


def tiny_random_vicuna(directory: Path, seed: int = 2, **changes: Any) -> Path:
    """Write a small random InstructBLIP with a Llama; ``changes`` override its text settings."""
    width = changes.pop("width", WIDTH)
    tokenizer = vicuna_tokenizer()
    text = llama_text(len(tokenizer) + 1, width) | changes
    return _write(directory, tokenizer, text, seed, width, ending=2.5)


def tiny_random_instruct_t5(directory: Path, seed: int = 0, width: int = WIDTH) -> Path:
    """Write a small random InstructBLIP with a Flan-T5-like language model."""
    tokenizer = t5_tokenizer()
    text = {
        "model_type": "t5",
        "vocab_size": -(-(len(tokenizer) + 1) // 64) * 64,
        "d_model": width,
        "d_kv": 16,
        "d_ff": 2 * width,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": width // 16,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    return _write(directory, tokenizer, text, seed, width, ending=2.5)


def llama_text(tokens: int, width: int = WIDTH) -> dict[str, Any]:
    """A small Llama configuration for so many tokens."""
    return {
        "model_type": "llama",
        "vocab_size": -(-tokens // 64) * 64,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": width // 16,
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def instruct_config(
    text: dict[str, Any], width: int, words: int, image_token: int | None, **changes: Any
) -> InstructBlipConfig:
    """A small InstructBLIP configuration around a language model's."""
    sizes = {
        "hidden_size": width,
        "num_attention_heads": width // 16,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
    }
    settings: dict[str, Any] = {
        "vision_config": sizes | {"image_size": IMAGE_SIZE, "patch_size": 8},
        "qformer_config": sizes
        | {"encoder_hidden_size": width, "max_position_embeddings": 64, "vocab_size": words},
        "num_query_tokens": QUERIES,
        "image_token_index": image_token,
    }
    return InstructBlipConfig(text_config=text, **(settings | changes))


def random_instruct(
    config: InstructBlipConfig, seed: int, ending: float
) -> InstructBlipForConditionalGeneration:
    """A model of random weights; ``ending`` scales the end token's row of the output matrix."""
    model = random_weights(InstructBlipForConditionalGeneration(config), seed)
    with torch.no_grad():
        model.get_output_embeddings().weight[config.text_config.eos_token_id] *= ending
    return model


def _write(
    directory: Path,
    tokenizer: PreTrainedTokenizerFast,
    text: dict[str, Any],
    seed: int,
    width: int,
    ending: float,
) -> Path:
    words = bert_tokenizer()
    processor = InstructBlipProcessor(image_processor(), tokenizer, words, num_query_tokens=QUERIES)
    token = tokenizer.convert_tokens_to_ids("<image>")
    config = instruct_config(text, width, len(words), token)
    return save(random_instruct(config, seed, ending), processor, directory)


def vicuna_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of Llama's kind, as InstructBLIP's authors set it: ``</s>`` begins every prompt,
    and ends every text."""
    return PreTrainedTokenizerFast(
        tokenizer_object=llama_tokenizer(),
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="[PAD]",
    )


def llama_tokenizer(pieces: int = 0) -> Tokenizer:
    """Byte pairs over whole texts, blanks written as ``▁``, unknown letters as bytes; filled up to
    ``pieces`` with made up ones."""
    words = sorted({f"▁{word}" for line in LINES for word in line.split()})
    letters = sorted({*"▁", *"".join(words), *"abcdefghijklmnopqrstuvwxyz"})
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        merges |= dict.fromkeys((word[:end], word[end]) for end in range(1, len(word)))
    found = ["<unk>", "<s>", "</s>", *BYTES, *letters]
    found += dict.fromkeys(left + right for left, right in merges)
    found += [f"▁madeup{number:05d}" for number in range(len(found), pieces)]
    vocabulary = {piece: number for number, piece in enumerate(found)}
    made = Tokenizer(
        models.BPE(vocabulary, list(merges), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", 2)]
    )
    return made
