"""Small random BLIP-2 checkpoints, written to disk in transformers' own layout.

They are real checkpoints with real tokenizers; only the numbers are random. The weights are wide
enough for texts to vary from image to image and to end at differing lengths.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.blip_2.configuration_blip_2 import Blip2Config
from transformers.models.blip_2.modeling_blip_2 import (
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
)
from transformers.models.blip_2.processing_blip_2 import Blip2Processor
from transformers.models.gpt2.tokenization_gpt2 import GPT2Tokenizer
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

Model = TypeVar("Model", bound=PreTrainedModel)

IMAGE_SIZE = 32
QUERIES = 12
WIDTH = 32
LINES = [
    "two cats and a pizza on a blue background",
    "Question: how many cats are there? Answer: three",
    "Question: what is left of the dog? Short answer: a red car",
    "a photo of a tree, a house and four birds",
] * 4


def tiny_random_opt(directory: Path, seed: int = 2, **changes: Any) -> Path:
    """Write a small random BLIP-2 with OPT; ``changes`` override ``small_config``'s settings."""
    tokenizer = opt_tokenizer()
    processor = Blip2Processor(image_processor(), tokenizer, num_query_tokens=QUERIES)
    config = small_config(
        opt_text(
            vocab_size=-(-len(tokenizer) // 64) * 64,
            eos_token_id=tokenizer.convert_tokens_to_ids("Ċ"),
            **_widths(changes.get("width", WIDTH), "ffn_dim", "word_embed_proj_dim"),
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        **changes,
    )
    return save(random_model(config, seed, ending=4.0), processor, directory)


def tiny_random_t5(directory: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a small random BLIP-2 with a Flan-T5-like language model."""
    tokenizer = t5_tokenizer()
    processor = Blip2Processor(image_processor(), tokenizer, num_query_tokens=QUERIES)
    width = changes.get("width", WIDTH)
    text = {
        "model_type": "t5",
        "vocab_size": -(-len(tokenizer) // 64) * 64,
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
        "bos_token_id": 1,  # as the published Flan-T5 checkpoints have it
        "eos_token_id": 1,
    }
    config = small_config(
        text, image_token_index=tokenizer.convert_tokens_to_ids("<image>"), **changes
    )
    return save(random_model(config, seed), processor, directory)


def tiny_random_itm(directory: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a small random retrieval model; ``changes`` override ``small_config``'s settings."""
    tokenizer = bert_tokenizer()
    processor = Blip2Processor(image_processor(), tokenizer, num_query_tokens=QUERIES)
    token = {"image_token_index": tokenizer.convert_tokens_to_ids("<image>")}
    config = small_config({"model_type": "opt"}, **(token | changes))
    config.qformer_config.use_qformer_text_input = True
    config.qformer_config.vocab_size = len(tokenizer)
    return save(random_weights(Blip2ForImageTextRetrieval(config), seed), processor, directory)


def image_processor(size: int = IMAGE_SIZE) -> BlipImageProcessorPil:
    """BLIP's image processor at a small size."""
    return BlipImageProcessorPil(size={"height": size, "width": size})


def opt_text(vocab_size: int, eos_token_id: int, **changes: Any) -> dict[str, Any]:
    """A small OPT configuration."""
    return {
        "model_type": "opt",
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 2,
        "pad_token_id": 1,
        "eos_token_id": eos_token_id,
    } | changes


def small_config(text: dict[str, Any], width: int = WIDTH, **changes: Any) -> Blip2Config:
    """A small BLIP-2 configuration around a language model's."""
    settings: dict[str, Any] = {
        "vision_config": {
            **_widths(width, "intermediate_size"),
            "num_hidden_layers": 2,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
        },
        "qformer_config": {
            "vocab_size": 64,
            **_widths(width, "intermediate_size"),
            "num_hidden_layers": 2,
            "encoder_hidden_size": width,
            "max_position_embeddings": 64,
        },
        "num_query_tokens": QUERIES,
        "image_text_hidden_size": 16,
    }
    return Blip2Config(text_config=text, **(settings | changes))


def _widths(width: int, inner: str, *same: str) -> dict[str, int]:
    """A part's widths: heads of 16, and a feed-forward layer twice as wide."""
    sizes = {"hidden_size": width, "num_attention_heads": width // 16, inner: 2 * width}
    return sizes | dict.fromkeys(same, width)


def random_model(
    config: Blip2Config, seed: int = 0, ending: float = 2.5
) -> Blip2ForConditionalGeneration:
    """A model of random weights whose texts differ from image to image and in length.

    ``ending`` scales the end token's embedding: a long one wins often, now early and now late.
    """
    model = random_weights(Blip2ForConditionalGeneration(config), seed)
    with torch.no_grad():
        model.get_output_embeddings().weight[model.config.text_config.eos_token_id] *= ending
    return model


def random_weights(model: Model, seed: int) -> Model:
    """Give every weight a value drawn from ``seed``, wide enough for outputs to differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() == 1:
                near = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
                weight.copy_(near + 0.1 * noise)
            elif name.endswith(("embed_tokens.weight", "shared.weight", "lm_head.weight")):
                weight.copy_(0.5 * noise)
            elif "embed" in name or "query_tokens" in name:
                weight.copy_(noise)
            else:
                fan_in = weight[0].numel()
                weight.copy_(1.5 * noise * fan_in**-0.5)
    return model.eval()


def save(model: PreTrainedModel, processor: Any, directory: Path) -> Path:
    """Save both and return the directory."""
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def bpe(lines: list[str] = LINES, size: int = 300) -> Tokenizer:
    """A byte-level BPE tokenizer with OPT's special tokens at OPT's ids."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(lines, trainer)
    return trained


def opt_tokenizer() -> GPT2Tokenizer:
    """A tokenizer of OPT's kind: ``</s>`` begins every prompt."""
    import json

    model = json.loads(bpe().to_str())["model"]
    return GPT2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
        add_bos_token=True,
    )


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of T5's kind: a unigram model, ``</s>`` ends every prompt."""
    # Not trained: the trainers of these two kinds give other pieces at every run.
    words = {f"▁{word}" for word in _words(str.split)}
    pieces = [*sorted({*"▁", *"".join(words)}), *sorted(words)]
    trained = Tokenizer(
        models.Unigram(
            [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
            + [(piece, -2.0 if piece in words else -8.0) for piece in pieces],
            unk_id=2,
        )
    )
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.decoder = decoders.Metaspace()
    trained.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=trained, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def _words(split: Callable[[str], list[str]]) -> set[str]:
    return {word for line in LINES for word in split(line)}


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of BERT's kind, as retrieval models have it: ``[CLS]`` text ``[SEP]``."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = _words(lambda line: re.findall(r"\w+|[^\w\s]", line.lower()))
    letters = sorted(set("".join(words)))
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    pieces += sorted(words - set(letters))
    pieces += [f"[unused{number}]" for number in range(100 - len(pieces))]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    trained = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer()
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trained.decoder = decoders.WordPiece()
    trained.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[DEC]",
    )
