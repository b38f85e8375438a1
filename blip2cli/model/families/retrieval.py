"""The retrieval family (arXiv 2301.12597, section 3.1): no language model, two heads that compare.

What it does instead of writing is in ``model/retrieval.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blip2cli.errors import ModelError
from blip2cli.model.families.base import Family
from blip2cli.model.families.opt.config import OptConfig


class _Retrieval(Family):
    def start_token(self, tokenizer: Any, config: Any, path: Path) -> int:
        # BERT's way: [CLS] text [SEP], also around no text at all.
        around = tokenizer("")["input_ids"]
        if not around:
            raise ModelError(
                None,
                f"the tokenizer in {path} puts nothing around a text, where a retrieval model "
                "needs [CLS] and [SEP]",
                "copy the tokenizer files of the model it was trained from",
            )
        return int(around[0])


RETRIEVAL = _Retrieval(
    name="itm",
    label="for retrieval",
    model_type="bert",
    architecture="Blip2ForImageTextRetrieval",
    # Files hold a text_config all the same, of a language model that is not there: OPT's, which
    # is transformers' default.
    config_class=OptConfig,
    lavis_key="itm_head.weight",
    lavis_tokens=(("bos_token", "[DEC]"),),
    lavis_names=(
        *(
            (f"Qformer.bert.encoder.layer.{{n}}.{name}", f"qformer.encoder.layer.{{n}}.{name}")
            for name in ("intermediate.dense.{p}", "output.dense.{p}", "output.LayerNorm.{p}")
        ),
        *(
            (f"Qformer.bert.embeddings.{name}.weight", f"embeddings.{name}.weight")
            for name in ("word_embeddings", "position_embeddings")
        ),
        ("vision_proj.{p}", "vision_projection.{p}"),
        ("text_proj.{p}", "text_projection.{p}"),
        ("itm_head.{p}", "itm_head.{p}"),
    ),
)
