"""What the files of every ``Salesforce/blip2-*`` repository on the hub have in common.

Two ages: with an image token (since transformers 4.47), where ``config.json`` holds what differs
from the defaults, and before it, where parts were written out whole.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers.modeling_utils import PreTrainedModel
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration

from tests.checkpoints import IMAGE_SIZE

MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
# A language model's generation settings, which stood in its configuration.
_GENERATION = {
    "add_cross_attention": False,
    "do_sample": False,
    "early_stopping": False,
    "length_penalty": 1.0,
    "max_length": 20,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "transformers_version": "4.27.0.dev0",
}
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "encoder_hidden_size",
    "max_position_embeddings",
    "ffn_dim",  # from here OPT's
    "word_embed_proj_dim",
    "d_model",  # from here T5's
    "d_kv",
    "d_ff",
    "num_layers",
    "num_decoder_layers",
    "num_heads",
)


def write_config(
    directory: Path, model: Blip2ForConditionalGeneration, text: dict[str, Any]
) -> None:
    """Both configurations since the image token; ``text``: the language model's but for sizes."""
    config, ids = model.config, model.config.text_config
    write_json(
        directory / "config.json",
        {
            "architectures": ["Blip2ForConditionalGeneration"],
            "image_text_hidden_size": 256,
            "image_token_index": config.image_token_index,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "model_type": "blip-2",
            "num_query_tokens": config.num_query_tokens,
            "qformer_config": {
                "classifier_dropout": None,
                "model_type": "blip_2_qformer",
                **_sizes(config.qformer_config),
            },
            "text_config": {**text, "vocab_size": ids.vocab_size, **_sizes(ids)},
            "torch_dtype": "float32",
            "transformers_version": "4.47.0.dev0",
            "use_decoder_only_language_model": config.use_decoder_only_language_model,
            "vision_config": {
                "dropout": 0.0,
                "initializer_factor": 1.0,
                "model_type": "blip_2_vision_model",
                "num_channels": 3,
                "projection_dim": 512,
                **_sizes(config.vision_config),
            },
        },
    )
    start = {} if not ids.is_encoder_decoder else {"decoder_start_token_id": 0}
    write_json(
        directory / "generation_config.json",
        {
            "_from_model_config": True,
            "bos_token_id": ids.bos_token_id,
            **start,
            "eos_token_id": ids.eos_token_id,
            "pad_token_id": ids.pad_token_id,
            "transformers_version": "4.47.0.dev0",
        },
    )


def write_older_config(
    directory: Path, model: Blip2ForConditionalGeneration, text: dict[str, Any]
) -> None:
    """The configuration before the image token, which had none for generation beside it."""
    config = model.config
    write_json(
        directory / "config.json",
        {
            "architectures": ["Blip2ForConditionalGeneration"],
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "model_type": "blip-2",
            "num_query_tokens": config.num_query_tokens,
            "qformer_config": {
                "classifier_dropout": None,
                "model_type": "blip_2_qformer",
                **_sizes(config.qformer_config),
            },
            "text_config": {
                **_GENERATION,
                **text,
                "vocab_size": config.text_config.vocab_size,
                **_sizes(config.text_config),
            },
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "transformers_version": None,
            "use_decoder_only_language_model": config.use_decoder_only_language_model,
            "vision_config": {
                "dropout": 0.0,
                "model_type": "blip_2_vision_model",
                "num_channels": 3,
                **_sizes(config.vision_config),
            },
        },
    )


def write_image_processor(directory: Path) -> None:
    """The image processor's settings, the same at every age."""
    write_json(
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


def write_processor(directory: Path, queries: int | None) -> None:
    """How many image tokens stand before a text; null between the two ages."""
    write_json(
        directory / "processor_config.json",
        {"num_query_tokens": queries, "processor_class": "Blip2Processor"},
    )


def write_shards(
    directory: Path,
    model: PreTrainedModel,
    pickled: bool = False,
    tied: Collection[str] = (),
) -> None:
    """Save in two shards with their index, every weight under its own name.

    ``tied`` names are left out of safetensors, which hold no weight twice.
    """
    stem, suffix = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    names = [name for name in weights if pickled or name not in tied]
    index: dict[str, str] = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"{stem}-{number:05d}-of-00002.{suffix}"
        index |= dict.fromkeys(part, file)
        shard = {name: weights[name] for name in part}
        if pickled:
            torch.save(shard, directory / file)
        else:
            save_file(shard, str(directory / file), metadata={"format": "pt"})
    size = sum(weights[name].numel() * 4 for name in names)
    write_json(
        directory / f"{stem}.{suffix}.index.json",
        {"metadata": {"total_size": size}, "weight_map": index},
    )


def reference(directory: Path) -> Blip2ForConditionalGeneration:
    """transformers' own model of the same weights."""
    return Blip2ForConditionalGeneration.from_pretrained(directory).eval()


def write_json(file: Path, value: dict[str, Any]) -> None:
    """As transformers writes it."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _sizes(config: Any) -> dict[str, Any]:
    """The entries that make it small."""
    values = config.to_dict()
    return {name: values[name] for name in _SIZES if name in values}
