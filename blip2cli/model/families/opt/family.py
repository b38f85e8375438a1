"""OPT (arXiv 2205.01068) as BLIP-2's language model: a decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blip2cli.model.families.opt.config import OptConfig
from blip2cli.model.families.opt.decoder_family import DecoderFamily

if TYPE_CHECKING:
    from torch import nn


class _Opt(DecoderFamily):
    def weight_name(self, name: str) -> str:
        # A bare OPTModel lacks the outer name of an OPTForCausalLM.
        return f"model.{name}" if name.startswith("decoder.") else name

    def language_model(self, config: Any) -> nn.Module:
        from blip2cli.model.families.opt.net import Opt

        return Opt(config)


OPT = _Opt(
    name="opt",
    label="with OPT",
    model_type="opt",
    architecture="Blip2ForConditionalGeneration",
    config_class=OptConfig,
    lavis_key="opt_proj.weight",
    lavis_names=(
        ("opt_proj.{p}", "language_projection.{p}"),
        ("opt_model.{rest}", "language_model.{rest}"),
    ),
    # Zero-shot VQA in BLIP-2 (arXiv 2301.12597), section 4.1 and appendix.
    template="Question: {question} Answer:",
    # Not OPT's own end token: BLIP-2 was trained on captions followed by a line break
    # (``eos_token_id`` in LAVIS's blip2_opt.py).
    end_text="\n",
    tied_embeddings=True,
    adds_begin_token=True,
    word_weights=("model.decoder.embed_tokens.weight", "lm_head.weight"),
)
