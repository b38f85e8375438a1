"""What language models that are decoders share as families: the begin token and the session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.model.families.base import LanguageFamily, first_id

if TYPE_CHECKING:
    from torch import Tensor

    from blip2cli.model.decoding.session import DecoderSession
    from blip2cli.model.vision.features import ImageFeatures


class DecoderFamily(LanguageFamily):
    """A decoder that reads image and prompt as the beginning of its text, as OPT and Llama do."""

    def start_token(self, tokenizer: Any, config: Any, path: Path) -> int:
        return first_id(config.bos_token_id, tokenizer.bos_token_id)

    def open_session(self, model: Any, features: ImageFeatures) -> DecoderSession:
        from blip2cli.model.families.opt.session import open_session

        return open_session(model, features)

    def text_states(self, language: Any, ids: Tensor) -> Tensor:
        from blip2cli.model.families.opt.layer import text_states

        return text_states(language.decoder, ids)
