"""The embedded models' shape: configuration, tokenizer, processor and fresh weights.

The real BLIP-2 in small: a ViT with a query/key/value bias whose key part is zero, a Q-Former
with cross-attention in every second layer, a pre-layernorm OPT (Li et al. 2023, section 3.1).
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import cast

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    GPT2Tokenizer,
    InstructBlipForConditionalGeneration,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from blip2cli.tiny.kinds import COLORS, EMOJI, NUMBERS, plural, with_article
from training.random_scenes import random_scene
from training.texts import scene_texts

IMAGE_SIZE = 112
PATCH_SIZE = 14
GRID = IMAGE_SIZE // PATCH_SIZE
WIDTH = 128
QUERIES = 16
VOCABULARY = 640  # byte symbols, special tokens and the words of our texts
MAX_POSITIONS = 256
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # OPT's order: pad 1, begin and end 2
EmbeddedModel = (
    Blip2ForConditionalGeneration
    | Blip2ForImageTextRetrieval
    | InstructBlipForConditionalGeneration
)


def build_tokenizer() -> GPT2Tokenizer:
    """A byte-level BPE tokenizer of the kind OPT uses, trained on our own texts.

    Every byte is a symbol, so any text can be read. ``</s>`` is put in front, as OPT does.
    """
    rng, chance = np.random.default_rng(7), random.Random(7)
    lines = [f"{with_article(k)} {k} {plural(k)}" for k in EMOJI for _ in range(200)]
    lines += [f"is the {color} shape {color}?" for color in COLORS for _ in range(200)]
    lines += [f"there are {number} objects" for number in NUMBERS for _ in range(200)]
    lines += ["is no circle present, rectangle or triangle in the image not contain"] * 200
    lines += ["what shape is in the image? circle\ntriangle\nrectangle\n"] * 100
    for _ in range(3000):
        # A scene's picture is not needed here: the smallest canvas is quickest.
        scene = random_scene(rng, size=(56, 56))[1]
        lines += [f"{text.prompt}{text.target}" for text in scene_texts(chance, scene, 4)]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,  # the image token comes last
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(lines, trainer)
    model = json.loads(trained.to_str())["model"]
    return GPT2Tokenizer(
        vocab=model["vocab"],
        merges=cast("list[str]", [tuple(pair) for pair in model["merges"]]),
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
        add_bos_token=True,
        padding_side="left",
        model_max_length=MAX_POSITIONS,
    )


def build_processor() -> Blip2Processor:
    """The processor: our tokenizer with ``<image>`` appended, and BLIP's image steps."""
    images = BlipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    return Blip2Processor(images, build_tokenizer(), num_query_tokens=QUERIES)


def load_processor(folder: Path) -> Blip2Processor:
    """A saved processor, with BLIP's image steps in Pillow whatever else is installed."""
    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    images = BlipImageProcessorPil.from_pretrained(folder)
    return Blip2Processor(images, tokenizer, num_query_tokens=QUERIES)


def build_config(processor: Blip2Processor) -> Blip2Config:
    """The configuration that fits the processor's vocabulary."""
    tokenizer = processor.tokenizer
    newline = tokenizer.convert_tokens_to_ids("Ċ")
    return Blip2Config(
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "initializer_range": 0.02,
            "layer_norm_eps": 1e-6,
        },
        qformer_config={
            "vocab_size": math.ceil(len(tokenizer) / 64) * 64,
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "cross_attention_frequency": 2,
            "encoder_hidden_size": WIDTH,
            "max_position_embeddings": MAX_POSITIONS,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config={
            "model_type": "opt",
            "vocab_size": math.ceil(len(tokenizer) / 64) * 64,
            "hidden_size": WIDTH,
            "word_embed_proj_dim": WIDTH,
            "ffn_dim": 4 * WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": MAX_POSITIONS,
            "do_layer_norm_before": True,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "bos_token_id": tokenizer.bos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            # As in the published OPT models: a text ends with a line break.
            "eos_token_id": newline,
        },
        num_query_tokens=QUERIES,
        image_text_hidden_size=64,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )


def build_model(config: Blip2Config, seed: int = 0) -> Blip2ForConditionalGeneration:
    """Fresh weights: normal of width 0.02 (0.02/√(2·layers) where a branch joins the residual)."""
    torch.manual_seed(seed)
    model = Blip2ForConditionalGeneration(config)
    joins = (
        "projection.weight",
        "fc2.weight",
        "out_proj.weight",
        "output.dense.weight",
        "output_query.dense.weight",
    )
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            continue
        std = 0.02 / math.sqrt(12) if name.endswith(joins) else 0.02
        nn.init.trunc_normal_(parameter, std=std)
    nn.init.trunc_normal_(model.language_projection.weight, std=WIDTH**-0.5)
    nn.init.normal_(model.query_tokens, std=0.2)
    return model


def zero_key_bias(model: EmbeddedModel) -> None:
    """Set the key part of every query/key/value bias to zero.

    A bias on the keys adds the same amount to all scores of a query, so the softmax does not
    see it; the original layout (EVA ViT-g) has none, and can then be written without loss.
    """
    for layer in model.vision_model.encoder.layers:
        bias = layer.self_attn.qkv.bias
        width = bias.shape[0] // 3
        with torch.no_grad():
            bias[width : 2 * width] = 0
