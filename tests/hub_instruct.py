"""Random checkpoints in the file layouts of ``Salesforce/instructblip-vicuna-7b`` on the hub.

Widths, depths and the Q-Former's vocabulary are small; names of files, their contents, Llama's
vocabulary and the ids in them are those of the published repository. Two ages: with the image token
(since transformers 4.47) and before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers.models.instructblip.modeling_instructblip import (
    InstructBlipForConditionalGeneration,
)

from tests.checkpoints import QUERIES, bert_tokenizer
from tests.hub_files import write_image_processor, write_json, write_shards
from tests.instruct_checkpoints import instruct_config, llama_tokenizer, random_instruct

PIECES = 32000  # Llama's
PAD, IMAGE_TOKEN = 32000, 32001
# What the configuration said of tokens at first, which the tokenizer does not.
_OLDER_IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": -1}
_TEXT = {
    "attention_bias": False,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "llama",
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
}
_SIZES = {
    "hidden_size": 16,
    "intermediate_size": 48,
    "max_position_embeddings": 2048,
    "num_attention_heads": 1,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
}


def published_vicuna(directory: Path, seed: int = 0) -> Path:
    """The layout since the image token: id 32001, vocabulary 32064, safetensors."""
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": PAD}
    text = _TEXT | _SIZES | ids | {"vocab_size": 32064, "architectures": ["LlamaForCausalLM"]}
    model = _model(text, IMAGE_TOKEN, seed)
    _write(directory, model, text, {"image_token_index": IMAGE_TOKEN})
    _tokenizer(directory, image=True)
    write_json(
        directory / "processor_config.json",
        {"num_query_tokens": QUERIES, "processor_class": "InstructBlipProcessor"},
    )
    write_json(directory / "generation_config.json", {"_from_model_config": True, **ids})
    write_shards(directory, model)
    return directory


def older_vicuna(directory: Path, seed: int = 0, pickled: bool = False) -> Path:
    """The layout before it: vocabulary 32001, no image token anywhere.

    ``pickled``: as first published, without processor_config.json.
    """
    ids = _OLDER_IDS | {"max_sequence_length": 2048, "vocab_size": 32001}
    text = _TEXT | _SIZES | ids | {"architectures": ["LLaMAForCausalLM"]}
    del text["rope_theta"], text["attention_bias"], text["num_key_value_heads"]
    model = _model(text, None, seed)
    _write(directory, model, text, {"tie_word_embeddings": False, "transformers_version": None})
    _tokenizer(directory, image=False)
    if not pickled:
        write_json(
            directory / "processor_config.json",
            {"num_query_tokens": None, "processor_class": "InstructBlipProcessor"},
        )
    write_shards(directory, model, pickled)
    return directory


def vicuna_prompt_ids(text: str) -> list[int]:
    """What the published tokenizer makes of a prompt: ``</s>`` first."""
    return [2, *llama_tokenizer(PIECES).encode(text, add_special_tokens=False).ids]


def _model(
    text: dict[str, Any], image_token: int | None, seed: int
) -> InstructBlipForConditionalGeneration:
    text = {name: text[name] for name in text if name not in ("architectures", "torch_dtype")}
    config = instruct_config(text, 16, len(bert_tokenizer()), image_token)
    return random_instruct(config, seed, ending=8.0)  # to win against so large a vocabulary


def _write(
    directory: Path,
    model: InstructBlipForConditionalGeneration,
    text: dict[str, Any],
    more: dict[str, Any],
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_image_processor(directory)
    config = model.config
    vision, qformer = config.vision_config.to_dict(), config.qformer_config.to_dict()
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
    write_json(
        directory / "config.json",
        {
            "architectures": ["InstructBlipForConditionalGeneration"],
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "model_type": "instructblip",
            "num_query_tokens": QUERIES,
            "qformer_config": {
                "model_type": "instructblip_qformer",
                **{name: qformer[name] for name in names},
                "max_position_embeddings": qformer["max_position_embeddings"],
                "vocab_size": qformer["vocab_size"],
            },
            "text_config": text,
            "torch_dtype": "float32",
            "use_decoder_only_language_model": True,
            "vision_config": {
                "model_type": "instructblip_vision_model",
                **{name: vision[name] for name in names},
                "image_size": vision["image_size"],
                "patch_size": vision["patch_size"],
            },
            **more,
        },
    )
    words = bert_tokenizer()
    words.save_pretrained(directory / "qformer_tokenizer")
    pieces = sorted(words.get_vocab(), key=words.get_vocab().__getitem__)
    (directory / "qformer_tokenizer" / "vocab.txt").write_text("\n".join(pieces) + "\n")


def _tokenizer(directory: Path, image: bool) -> None:
    tokenizer = llama_tokenizer(PIECES)
    tokenizer.add_special_tokens([AddedToken("[PAD]", normalized=False, special=True)])
    assert tokenizer.token_to_id("[PAD]") == PAD
    if image:
        tokenizer.add_special_tokens([AddedToken("<image>", normalized=False, special=True)])
        assert tokenizer.token_to_id("<image>") == IMAGE_TOKEN
        # The repository serves models of videos as well.
        tokenizer.add_special_tokens([AddedToken("<video>", normalized=False, special=True)])
    tokenizer.save(str(directory / "tokenizer.json"))
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    named = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "[PAD]", "unk_token": "</s>"}
    settings: dict[str, Any] = {
        "clean_up_tokenization_spaces": False,
        "legacy": True,
        "model_max_length": 1000000000000000019884624838656,
        "processor_class": "InstructBlipProcessor",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "truncation_side": "left",
        **named,
    }
    if image:
        settings |= {
            "add_bos_token": True,
            "add_eos_token": False,
            "added_tokens_decoder": {
                str(number): {"content": added.content, "special": True, **token}
                for number, added in sorted(tokenizer.get_added_tokens_decoder().items())
            },
        }
        added = {"<image>": IMAGE_TOKEN, "<video>": IMAGE_TOKEN + 1, "[PAD]": PAD}
        write_json(directory / "added_tokens.json", added)
    write_json(directory / "tokenizer_config.json", settings)
    write_json(
        directory / "special_tokens_map.json",
        {name: {"content": word, **token} for name, word in named.items()},
    )
