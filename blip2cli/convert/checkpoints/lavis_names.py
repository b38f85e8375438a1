"""Names of weights in LAVIS and in transformers: one table, read in both directions.

Sources: LAVIS's ``eva_vit.py``, ``Qformer.py`` and ``blip2_*.py``, transformers'
``modeling_blip_2.py`` and ``modeling_instructblip.py``. The one thing that is not a renaming, the
bias of query, key and value, is in ``lavis_file.py``.
"""

from __future__ import annotations

import re

from blip2cli.model.checkpoint.model_types import BLIP_2, MODEL_TYPES, ModelType
from blip2cli.model.families import FAMILIES, RETRIEVAL, Family

# In a name, {n} is the number of a layer, {p} is weight or bias, and {rest} is anything.
_VISION = (
    ("cls_token", "embeddings.class_embedding"),
    ("pos_embed", "embeddings.position_embedding"),
    ("patch_embed.proj.{p}", "embeddings.patch_embedding.{p}"),
    ("blocks.{n}.norm1.{p}", "encoder.layers.{n}.layer_norm1.{p}"),
    ("blocks.{n}.norm2.{p}", "encoder.layers.{n}.layer_norm2.{p}"),
    ("blocks.{n}.attn.qkv.weight", "encoder.layers.{n}.self_attn.qkv.weight"),
    ("blocks.{n}.attn.q_bias", "encoder.layers.{n}.self_attn.q_bias"),
    ("blocks.{n}.attn.v_bias", "encoder.layers.{n}.self_attn.v_bias"),
    ("blocks.{n}.attn.proj.{p}", "encoder.layers.{n}.self_attn.projection.{p}"),
    ("blocks.{n}.mlp.fc1.{p}", "encoder.layers.{n}.mlp.fc1.{p}"),
    ("blocks.{n}.mlp.fc2.{p}", "encoder.layers.{n}.mlp.fc2.{p}"),
)
# CLIP's ViT-L (LAVIS's ``clip_vit.py``), which is only read.
_BLOCK_L = "transformer.resblocks.{n}"
_VISION_L = (
    ("class_embedding", "embeddings.class_embedding"),
    ("positional_embedding", "embeddings.position_embedding"),
    ("conv1.weight", "embeddings.patch_embedding.weight"),
    ("ln_pre.{p}", "pre_layernorm.{p}"),
    (f"{_BLOCK_L}.ln_1.{{p}}", "encoder.layers.{n}.layer_norm1.{p}"),
    (f"{_BLOCK_L}.ln_2.{{p}}", "encoder.layers.{n}.layer_norm2.{p}"),
    (f"{_BLOCK_L}.attn.in_proj_{{p}}", "encoder.layers.{n}.self_attn.qkv.{p}"),
    (f"{_BLOCK_L}.attn.out_proj.{{p}}", "encoder.layers.{n}.self_attn.projection.{p}"),
    (f"{_BLOCK_L}.mlp.c_fc.{{p}}", "encoder.layers.{n}.mlp.fc1.{p}"),
    (f"{_BLOCK_L}.mlp.c_proj.{{p}}", "encoder.layers.{n}.mlp.fc2.{p}"),
)
_ATTENTION = tuple(
    pair
    for block in ("attention", "crossattention")
    for pair in (
        (f"{block}.self.query.{{p}}", f"{block}.attention.query.{{p}}"),
        (f"{block}.self.key.{{p}}", f"{block}.attention.key.{{p}}"),
        (f"{block}.self.value.{{p}}", f"{block}.attention.value.{{p}}"),
        (f"{block}.output.dense.{{p}}", f"{block}.output.dense.{{p}}"),
        (f"{block}.output.LayerNorm.{{p}}", f"{block}.output.LayerNorm.{{p}}"),
    )
)
_QUERY_BRANCH = ("intermediate_query.dense.{p}", "output_query.dense.{p}",
                 "output_query.LayerNorm.{p}")  # fmt: skip
_SHARED = (
    ("query_tokens", "query_tokens"),
    *(
        (f"Qformer.bert.encoder.layer.{{n}}.{lavis}", f"qformer.encoder.layer.{{n}}.{ours}")
        for lavis, ours in (*_ATTENTION, *((name, name) for name in _QUERY_BRANCH))
    ),
    ("ln_vision.{p}", "vision_model.post_layernorm.{p}"),
)
# Of a Q-Former that reads prompts.
_INSTRUCTED = (
    ("Qformer.bert.embeddings.LayerNorm.{p}", "qformer.embeddings.layernorm.{p}"),
    *(
        (f"Qformer.bert.embeddings.{name}.weight", f"qformer.embeddings.{name}.weight")
        for name in ("word_embeddings", "position_embeddings")
    ),
    *(pair for pair in RETRIEVAL.lavis_names if pair[0].startswith("Qformer.bert.encoder.")),
)
_PLAIN = (("Qformer.bert.embeddings.LayerNorm.{p}", "qformer.layernorm.{p}"),)
Kind = tuple[Family, ModelType]
_TABLES: dict[Kind, tuple[tuple[str, str], ...]] = {
    (family, model_type): (
        *((f"visual_encoder.{lavis}", f"vision_model.{ours}") for lavis, ours in _VISION),
        *_SHARED,
        *(_INSTRUCTED if model_type.instructed else _PLAIN),
        *family.lavis_names,
    )
    for family in FAMILIES
    for model_type in MODEL_TYPES.values()
}

# What LAVIS may save and transformers has no place for.
_DROPPED = (
    "Qformer.cls.{rest}",  # the language modelling head of the first stage of training
    "temp",  # the temperature of the contrastive loss
)
# eva_vit_g.pth is an image classifier; LAVIS builds 39 blocks of it, and no head; of CLIP's 21.
_VISION_WEIGHTS = (
    *("cls_token", "pos_embed", "patch_embed.", "blocks."),
    *("class_embedding", "positional_embedding", "conv1.", "ln_pre.", "transformer."),
)

_FIELDS = {"n": r"(?P<n>\d+)", "p": r"(?P<p>weight|bias)", "rest": r"(?P<rest>.+)"}


def _pattern(name: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", name)
    return re.compile(
        "".join(_FIELDS[part] if odd % 2 else re.escape(part) for odd, part in enumerate(parts))
    )


_READ = tuple((f"visual_encoder.{lavis}", f"vision_model.{ours}") for lavis, ours in _VISION_L)
_TO_TRANSFORMERS = {
    kind: [(_pattern(lavis), ours) for lavis, ours in (*names, *_READ)]
    for kind, names in _TABLES.items()
}
_TO_LAVIS = {
    kind: [(_pattern(ours), lavis) for lavis, ours in names] for kind, names in _TABLES.items()
}
_DROPS = tuple(_pattern(name) for name in _DROPPED)
_BLOCKS = (_pattern("blocks.{n}.{rest}"), _pattern(f"{_BLOCK_L}.{{rest}}"))


def to_transformers(name: str, kind: Family, model_type: ModelType = BLIP_2) -> str | None:
    """The name in transformers of a weight of LAVIS; None for an unknown one."""
    return _renamed(name, _TO_TRANSFORMERS[kind, model_type])


def to_lavis(name: str, kind: Family, model_type: ModelType = BLIP_2) -> str | None:
    """The name in LAVIS of a weight of transformers; None for an unknown one."""
    return _renamed(name, _TO_LAVIS[kind, model_type])


def is_dropped(name: str) -> bool:
    """Whether transformers has no place for this weight of LAVIS, and need not have one."""
    return any(pattern.fullmatch(name) for pattern in _DROPS)


def is_dropped_of_vision(name: str, depth: int) -> bool:
    """Whether BLIP-2 has no use for this weight of a vision encoder: a head, a block too many."""
    block = next((found for each in _BLOCKS if (found := each.fullmatch(name))), None)
    if block is not None:
        return int(block["n"]) >= depth
    return not name.startswith(_VISION_WEIGHTS)


def _renamed(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, new in rules:
        if found := pattern.fullmatch(name):
            return new.format(**found.groupdict())
    return None
