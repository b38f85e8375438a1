"""Llama (arXiv 2302.13971) as InstructBLIP's language model, in Vicuna's weights: a decoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.model.families.base import LanguageFamily, first_id
from blip2cli.model.families.llama.config import LlamaConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from blip2cli.model.decoding.session import DecoderSession
    from blip2cli.model.vision.features import ImageFeatures


class _Llama(LanguageFamily):
    def start_token(self, tokenizer: Any, config: Any, path: Path) -> int:
        return first_id(config.bos_token_id, tokenizer.bos_token_id)

    def weight_name(self, name: str) -> str:
        # A bare model lacks the outer name of one with an output matrix.
        return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"

    def language_model(self, config: Any) -> nn.Module:
        from blip2cli.model.families.llama.net import Llama

        return Llama(config)

    def open_session(self, model: Any, features: ImageFeatures) -> DecoderSession:
        from blip2cli.model.families.opt.session import open_session

        return open_session(model, features)

    def text_states(self, language: Any, ids: Tensor) -> Tensor:
        from blip2cli.model.families.opt.layer import text_states

        return text_states(language.decoder, ids)


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
