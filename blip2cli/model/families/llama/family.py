"""Llama (arXiv 2302.13971) as InstructBLIP's language model, in Vicuna's weights: a decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blip2cli.model.families.llama.config import LlamaConfig
from blip2cli.model.families.opt.decoder_family import DecoderFamily

if TYPE_CHECKING:
    from torch import nn


class _Llama(DecoderFamily):
    def weight_name(self, name: str) -> str:
        # A bare model lacks the outer name of one with an output matrix.
        return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"

    def language_model(self, config: Any) -> nn.Module:
        from blip2cli.model.families.llama.net import Llama

        return Llama(config)


LLAMA = _Llama(
    name="vicuna",
    label="with Vicuna",
    model_type="llama",
    architecture="Blip2ForConditionalGeneration",
    config_class=LlamaConfig,
    lavis_key="llm_proj.weight",
    lavis_tokens=(
        ("pad_token", "[PAD]"),
        ("bos_token", "</s>"),
        ("eos_token", "</s>"),
        ("unk_token", "</s>"),
    ),
    lavis_names=(
        ("llm_proj.{p}", "language_projection.{p}"),
        ("llm_model.{rest}", "language_model.{rest}"),
    ),
    # Zero-shot VQA in InstructBLIP (arXiv 2305.06500), appendix.
    template="Question: {question} Short answer:",
    word_weights=("model.embed_tokens.weight", "lm_head.weight"),
    # SentencePiece begins every text with a blank, but not what goes on in a line; no token holds
    # a line break together with what follows it.
    continued_text="\n",
)
