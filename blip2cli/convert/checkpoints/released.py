"""The checkpoints that LAVIS released, and the settings that their files lack.

Sources: LAVIS's ``configs/models/blip2/*.yaml``, the configurations of ``facebook/opt-*``,
``google/flan-t5-*`` and ``bert-base-uncased`` that its code loads, and those of the
``Salesforce/blip2-*`` and ``Salesforce/instructblip-*`` repositories. ``eva_vit_g.pth`` and
``clip_vit_L.pth`` lie beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blip2cli.model.checkpoint.model_types import BLIP_2, INSTRUCT_BLIP, ModelType
from blip2cli.model.families import LLAMA, OPT, RETRIEVAL, T5, Family

Settings = dict[str, Any]

VISION_G: Settings = {
    "model_type": "blip_2_vision_model", "hidden_size": 1408, "intermediate_size": 6144,
    "num_hidden_layers": 39, "num_attention_heads": 16, "patch_size": 14, "hidden_act": "gelu",
    "layer_norm_eps": 1e-6, "qkv_bias": True, "attention_dropout": 0.0,
}  # fmt: skip
WIDTH_L = 1024
# CLIP's ViT-L without its last layers; ``pre_layernorm`` is a word of ours.
VISION_L: Settings = VISION_G | {
    "hidden_size": WIDTH_L, "intermediate_size": 4 * WIDTH_L, "num_hidden_layers": 21,
    "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "pre_layernorm": True,
}  # fmt: skip
QFORMER: Settings = {
    "model_type": "blip_2_qformer", "vocab_size": 30522, "hidden_size": 768,
    "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
    "cross_attention_frequency": 2, "encoder_hidden_size": 1408,
}  # fmt: skip
# BERT's vocabulary and [DEC]; texts go through the Q-Former.
QFORMER_TEXT: Settings = {"vocab_size": 30523, "use_qformer_text_input": True}


def _opt(width: int, language_model: str) -> Settings:
    return {
        "model_type": OPT.model_type, "_name_or_path": language_model, "hidden_size": width,
        "word_embed_proj_dim": width, "ffn_dim": 4 * width, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "vocab_size": 50304,
        "activation_function": "relu", "do_layer_norm_before": True, "prefix": "</s>",
        "bos_token_id": 2, "pad_token_id": 1,
        "eos_token_id": 50118,  # a line break: where LAVIS ends a text
    }  # fmt: skip


def _flan_t5(width: int, inner: int, heads: int, language_model: str) -> Settings:
    return {
        "model_type": T5.model_type, "_name_or_path": language_model, "d_model": width,
        "d_ff": inner, "d_kv": 64, "num_layers": 24, "num_decoder_layers": 24, "num_heads": heads,
        "vocab_size": 32128, "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "gated-gelu", "is_gated_act": True,
        "dense_act_fn": "gelu",  # Flan-T5 says gelu_new; LAVIS trained the Q-Former with gelu
        "is_encoder_decoder": True, "tie_word_embeddings": False, "bos_token_id": 1,
        "eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 0,
    }  # fmt: skip


def _llama(width: int, inner: int, layers: int, language_model: str) -> Settings:
    return {
        "model_type": LLAMA.model_type, "_name_or_path": language_model, "hidden_size": width,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": layers,
        "max_position_embeddings": 2048, "vocab_size": 32064, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip


@dataclass(frozen=True)
class Released:
    """One released checkpoint."""

    model: str  # LAVIS's two names for it
    type: str
    file: str
    kind: Family
    image_size: int
    language_model: str  # the hub's name of what its file does not hold; for retrieval a tokenizer
    text: Settings  # text_config
    image_token: int
    hub: str | None  # the same model in transformers
    vision_width: int = 1408
    holds_vision: bool = False  # LAVIS saves only what was trained
    model_type: ModelType = BLIP_2

    @property
    def vision_file(self) -> str:
        """The file beside it with the vision encoder."""
        return "clip_vit_L.pth" if self.vision_width == WIDTH_L else "eva_vit_g.pth"

    @property
    def _vision(self) -> Settings:
        return VISION_L if self.vision_width == WIDTH_L else VISION_G

    @property
    def width(self) -> int:
        """The language model's width; 0 without one."""
        return int(self.text.get("hidden_size") or self.text.get("d_model") or 0)

    def config(self, image_size: int, queries: int) -> Settings:
        """What ``config.json`` says, for this size in pixels and number of query tokens."""
        kind = self.model_type
        more = {} if self.kind.writes else QFORMER_TEXT
        if kind.instructed:
            more = {"model_type": f"{kind.package}_qformer", "vocab_size": 30523}
        return {
            "architectures": [kind.architecture(self.kind)],
            "model_type": kind.name,
            **({} if kind.instructed else {"image_text_hidden_size": 256}),
            "image_token_index": self.image_token,
            "num_query_tokens": queries,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "use_decoder_only_language_model": not self.kind.encoder_decoder,
            "vision_config": self._vision
            | {"model_type": f"{kind.package}_vision_model", "image_size": image_size},
            "qformer_config": QFORMER | {"encoder_hidden_size": self.vision_width} | more,
            "text_config": dict(self.text),
        }


_OPT_27 = ("facebook/opt-2.7b", _opt(2560, "facebook/opt-2.7b"), 50265)
_OPT_67 = ("facebook/opt-6.7b", _opt(4096, "facebook/opt-6.7b"), 50265)
_T5_XL = ("google/flan-t5-xl", _flan_t5(2048, 5120, 32, "google/flan-t5-xl"), 32100)
_T5_XXL = ("google/flan-t5-xxl", _flan_t5(4096, 10240, 64, "google/flan-t5-xxl"), 32100)


_BERT = ("google-bert/bert-base-uncased", {"model_type": OPT.model_type}, 30523)
_LLAMA_7 = ("lmsys/vicuna-7b-v1.1", _llama(4096, 11008, 32, "lmsys/vicuna-7b-v1.1"), 32001)
_LLAMA_13 = ("lmsys/vicuna-13b-v1.1", _llama(5120, 13824, 40, "lmsys/vicuna-13b-v1.1"), 32001)

RELEASED: tuple[Released, ...] = (
    Released("blip2_opt", "pretrain_opt2.7b", "blip2_pretrained_opt2.7b.pth", OPT, 224,
             *_OPT_27, "Salesforce/blip2-opt-2.7b"),
    Released("blip2_opt", "pretrain_opt6.7b", "blip2_pretrained_opt6.7b.pth", OPT, 224,
             *_OPT_67, "Salesforce/blip2-opt-6.7b"),
    Released("blip2_opt", "caption_coco_opt2.7b", "blip2_caption_opt2.7b.pth", OPT, 364,
             *_OPT_27, "Salesforce/blip2-opt-2.7b-coco", holds_vision=True),
    Released("blip2_opt", "caption_coco_opt6.7b", "blip2_caption_opt6.7b.pth", OPT, 364,
             *_OPT_67, "Salesforce/blip2-opt-6.7b-coco", holds_vision=True),
    Released("blip2_t5", "pretrain_flant5xl", "blip2_pretrained_flant5xl.pth", T5, 224,
             *_T5_XL, "Salesforce/blip2-flan-t5-xl"),
    Released("blip2_t5", "pretrain_flant5xxl", "blip2_pretrained_flant5xxl.pth", T5, 224,
             *_T5_XXL, "Salesforce/blip2-flan-t5-xxl"),
    Released("blip2_t5", "caption_coco_flant5xl", "blip2_caption_flant5xl.pth", T5, 364,
             *_T5_XL, "Salesforce/blip2-flan-t5-xl-coco", holds_vision=True),
    Released("blip2_t5", "pretrain_flant5xl_vitL", "blip2_pretrained_flant5xl_vitL.pth", T5, 224,
             *_T5_XL, None, vision_width=WIDTH_L),
    Released("blip2", "pretrain", "blip2_pretrained.pth", RETRIEVAL, 224,
             *_BERT, "Salesforce/blip2-itm-vit-g"),
    Released("blip2", "coco", "blip2_finetune_coco.pth", RETRIEVAL, 364,
             *_BERT, "Salesforce/blip2-itm-vit-g-coco", holds_vision=True),
    Released("blip2", "pretrain_vitL", "blip2_pretrained_vitL.pth", RETRIEVAL, 224,
             *_BERT, None, vision_width=WIDTH_L),
    *(
        Released(model, kind, file, family, 224, *language, hub, model_type=INSTRUCT_BLIP)
        for model, kind, file, family, language, hub in (
            ("blip2_vicuna_instruct", "vicuna7b", "instruct_blip_vicuna7b_trimmed.pth", LLAMA,
             _LLAMA_7, "Salesforce/instructblip-vicuna-7b"),
            ("blip2_vicuna_instruct", "vicuna13b", "instruct_blip_vicuna13b_trimmed.pth", LLAMA,
             _LLAMA_13, "Salesforce/instructblip-vicuna-13b"),
            ("blip2_t5_instruct", "flant5xl", "instruct_blip_flanxl_trimmed.pth", T5,
             _T5_XL, "Salesforce/instructblip-flan-t5-xl"),
            ("blip2_t5_instruct", "flant5xxl", "instruct_blip_flanxxl_trimmed.pth", T5,
             _T5_XXL, "Salesforce/instructblip-flan-t5-xxl"),
        )
    ),
)  # fmt: skip


def identify(
    kind: Family,
    vision_width: int,
    width: int,
    image_size: int | None,
    model_type: ModelType = BLIP_2,
) -> Released | None:
    """The released checkpoint of these widths; the nearest one where the size is another.

    ``width`` is the language model's (0 for retrieval). Fine-tuned models have the shapes, and so
    the settings, of the model that they were tuned from.
    """
    matching = [
        one
        for one in RELEASED
        if (one.kind, one.model_type, one.vision_width, one.width)
        == (kind, model_type, vision_width, width)
    ]
    exact = [one for one in matching if one.image_size == image_size]
    return next(iter(exact or matching), None)
