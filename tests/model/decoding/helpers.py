"""Generation below the wrapper: with a decoder session of the test's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blip2cli.model.decoding.requests import GeneratedTokens
from blip2cli.model.decoding.session import DecoderSession
from blip2cli.model.generation import generate_tokens
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.options import DecodeOptions
from tests.model.conftest import Pair


def open_session(pair: Pair) -> DecoderSession:
    """A new session of the pair's images."""
    return pair.ours.family.open_session(pair.ours.model, pair.features)  # type: ignore[attr-defined]


class Limited:
    """``session`` with ``slots`` open at once, at most."""

    def __init__(self, session: DecoderSession, slots: int) -> None:
        self._session = session
        self.slot_limit = slots

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def generate(
    pair: Pair,
    prompts: Sequence[Prompt],
    options: DecodeOptions,
    session: DecoderSession | Limited | None = None,
    **more: Any,
) -> list[list[GeneratedTokens]]:
    """What ``generate_tokens`` makes of the prompts, in a new session unless one is given."""
    ids = [pair.ours.codec.encode(prompt.text) for prompt in prompts]
    end = pair.ours.model.config.text_config.end_tokens
    return generate_tokens(session or open_session(pair), prompts, ids, options, end, **more)  # type: ignore[arg-type]
