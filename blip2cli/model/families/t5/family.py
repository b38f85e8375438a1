"""(Flan-)T5 (arXiv 1910.10683, 2210.11416) as BLIP-2's language model: encoder and decoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.model.families.base import LanguageFamily, first_id
from blip2cli.model.families.t5.config import T5Config

if TYPE_CHECKING:
    from torch import Tensor, nn

    from blip2cli.model.decoding.session import DecoderSession
    from blip2cli.model.vision.features import ImageFeatures


class _T5(LanguageFamily):
    def start_token(self, tokenizer: Any, config: Any, path: Path) -> int:
        return first_id(config.bos_token_id, tokenizer.eos_token_id)

    def split_gap(self, prompt: str) -> tuple[str, str]:
        # The decoder writes a text of its own, for which the prompt's end does not matter: a
        # SentencePiece tokenizer begins every text with a blank, one that stands there already
        # included, and a byte-level one needs it written.
        return prompt, " "

    def language_model(self, config: Any) -> nn.Module:
        from blip2cli.model.families.t5.net import T5

        return T5(config)

    def open_session(self, model: Any, features: ImageFeatures) -> DecoderSession:
        from blip2cli.model.families.t5.session import T5Session

        return T5Session(model.language_model, features.language_inputs)

    def text_states(self, language: Any, ids: Tensor) -> Tensor:
        """The encoder's."""
        states: Tensor = language.encoder(language.shared(ids))
        return states


T5 = _T5(
    name="t5",
    label="with T5",
    model_type="t5",
    architecture="Blip2ForConditionalGeneration",
    config_class=T5Config,
    lavis_key="t5_proj.weight",
    lavis_names=(
        ("t5_proj.{p}", "language_projection.{p}"),
        ("t5_model.{rest}", "language_model.{rest}"),
    ),
    lavis_dtype="bfloat16",
    encoder_decoder=True,
    # Zero-shot VQA in BLIP-2 (arXiv 2301.12597), section 4.1 and appendix.
    template="Question: {question} Short answer:",
    unfit_dtypes=("float16",),
    unfit_because=(
        "does not work with Flan-T5: its feed-forward sums overflow float16 and the text turns to "
        "nonsense"
    ),
    word_weights=(
        "shared.weight",
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
        "lm_head.weight",
    ),
    # The stacks may bring the embedding under their own names, of which there is one.
    weight_aliases=tuple(
        (f"language_model.{stack}.embed_tokens.weight", "language_model.shared.weight")
        for stack in ("encoder", "decoder")
    ),
    separate_words=(
        (
            "language_model.decoder.embed_tokens.weight",
            "language_model.decoder_embedding.weight",
        ),
    ),
)
