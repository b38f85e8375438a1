"""The two language models behind one face: read a prefix, then one token a step.

OPT reads [image features][prompt] itself and continues it. T5's encoder reads the same, and its
decoder starts from its start token. Either way ``prefill`` gives the scores of the first new
token and a state that ``step`` carries on. States hold keys and values per row; rows may be
repeated (several draws of one prompt) or dropped (finished ones).

Where many short continuations of one prompt are read instead of written, ``Images`` reads each
picture once for all its prompts as far as the model allows, ``fork`` copies a state for several
continuations, and ``extend`` reads them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from blip2cli.model.checkpoint import Family

if TYPE_CHECKING:
    from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration


class LanguageState(Protocol):
    """Keys and values of R running rows."""

    def select(self, rows: Tensor) -> None:
        """Keep (or repeat) these rows, an index tensor, in this order."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token a row, [R]; return the next token's raw scores, [R, V]."""

    def extend(self, tokens: Tensor) -> Tensor:
        """Append T tokens a row, [R, T]; return the raw scores after each, [R, T, V]."""

    def fork(self, rows: Tensor) -> LanguageState:
        """A state of its own for these rows (they may repeat); this one stays as it is."""


@dataclass(frozen=True)
class Prefix:
    """R rows of equal length: what the language model reads before it writes."""

    embeds: Tensor  # [R, Q + T, D]: image features, then embedded prompt; no padding
    history: Tensor  # [R, H]: the ids that repetition rules count as written before


def build_prefix(
    model: Blip2ForConditionalGeneration, family: Family, images: Tensor, prompts: Tensor
) -> Prefix:
    """Join image features [R, Q, D] and prompt ids [R, T].

    History is what transformers counts: for OPT the image placeholders and the prompt (a
    checkpoint without an image token gets an id outside the vocabulary, which no rule touches),
    for T5 the decoder's start token alone.
    """
    embedded = model.get_input_embeddings()(prompts)
    embeds = torch.cat((images.to(embedded.dtype), embedded), dim=1)
    rows = prompts.shape[0]
    if family == "t5":
        start = model.language_model.generation_config.decoder_start_token_id
        if start is None:
            start = model.language_model.config.pad_token_id or 0  # T5 starts from its padding
        return Prefix(embeds, prompts.new_full((rows, 1), start))
    placeholder = model.config.image_token_index
    if placeholder is None:
        placeholder = model.language_model.config.vocab_size
    filler = prompts.new_full((rows, images.shape[1]), placeholder)
    return Prefix(embeds, torch.cat((filler, prompts), dim=1))


def read_texts(model: Blip2ForConditionalGeneration, family: Family, ids: Tensor) -> Tensor:
    """The last hidden state of texts alone, [N, T] to [N, T, Dl]; T5: its encoder's.

    ``get_text_features`` of transformers' ``Blip2Model``.
    """
    language: Any = model.language_model
    reader = language.get_encoder() if family == "t5" else language.base_model
    # Of few positions (3 to 11, measured with torch 2.13), plain matrix products give a row other
    # bits in other company; what decoding takes them for, a single query, does not come up here.
    before = reader.config._attn_implementation
    reader.config._attn_implementation = "sdpa"
    try:
        states: Tensor = reader(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        reader.config._attn_implementation = before
    return states


def prefill(
    model: Blip2ForConditionalGeneration, family: Family, prefix: Prefix
) -> tuple[Tensor, LanguageState]:
    """Read the prefix; return the first token's raw scores [R, V] and the state."""
    if family == "t5":
        return _prefill_t5(model.language_model, prefix)
    from transformers.cache_utils import DynamicCache

    language = model.language_model
    cache = DynamicCache(config=language.config)
    output = language(
        inputs_embeds=prefix.embeds, past_key_values=cache, use_cache=True, logits_to_keep=1
    )
    return output.logits[:, -1], _OptState(language, cache)


@dataclass
class _OptState:
    language: Any
    cache: Any

    def select(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)

    def step(self, tokens: Tensor) -> Tensor:
        return self.extend(tokens[:, None])[:, -1]

    def extend(self, tokens: Tensor, keep: int = 0) -> Tensor:
        """``keep``: scores of so many last positions only; 0: of all."""
        output = self.language(
            input_ids=tokens, past_key_values=self.cache, use_cache=True, logits_to_keep=keep
        )
        scores: Tensor = output.logits
        return scores

    def fork(self, rows: Tensor) -> _OptState:
        return _OptState(self.language, _forked(self.cache, rows))


def _prefill_t5(language: Any, prefix: Prefix) -> tuple[Tensor, LanguageState]:
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    encoded = language.encoder(inputs_embeds=prefix.embeds).last_hidden_state
    cache = EncoderDecoderCache(
        DynamicCache(config=language.config), DynamicCache(config=language.config)
    )
    state = _T5State(language, cache, encoded)
    return state.step(prefix.history[:, -1]), state


@dataclass
class _T5State:
    language: Any
    cache: Any
    encoded: Tensor  # [R, Q + T, D]

    def select(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.encoded = self.encoded[rows]

    def step(self, tokens: Tensor) -> Tensor:
        return self.extend(tokens[:, None])[:, -1]

    def extend(self, tokens: Tensor) -> Tensor:
        from transformers.modeling_outputs import BaseModelOutput

        output = self.language(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.encoded),
            decoder_input_ids=tokens,
            past_key_values=self.cache,
            use_cache=True,
        )
        scores: Tensor = output.logits
        return scores

    def fork(self, rows: Tensor) -> _T5State:
        from transformers.cache_utils import EncoderDecoderCache

        both = (self.cache.self_attention_cache, self.cache.cross_attention_cache)
        cache = EncoderDecoderCache(*(_forked(part, rows) for part in both))
        return _T5State(self.language, cache, self.encoded[rows])


def _forked(cache: Any, rows: Tensor) -> Any:
    """A cache of these rows that shares nothing with ``cache``."""
    other = copy.copy(cache)
    other.layers = [copy.copy(layer) for layer in cache.layers]
    other.batch_select_indices(rows)
    return other


class Images(Protocol):
    """Images about which prompts are asked."""

    def read(self, rows: Tensor, prompts: Tensor) -> tuple[Tensor, LanguageState]:
        """Read prompt ids [R, T], each after the image that ``rows`` [R] names.

        Returns the scores of the first token after it, [R, V], and the state.
        """


def read_images(model: Blip2ForConditionalGeneration, family: Family, images: Tensor) -> Images:
    """Make image features [B, Q, D] ready for any number of prompts.

    OPT attends backwards only, so the keys and values of an image are computed once for all its
    prompts. T5's encoder lets the image see the prompt: nothing but the features can be shared.
    """
    if family == "t5":
        return _T5Images(model, images)
    from transformers.cache_utils import DynamicCache

    language: Any = model.language_model
    cache = DynamicCache(config=language.config)
    embeds = images.to(language.get_input_embeddings().weight.dtype)
    language.model(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
    return _OptImages(_OptState(language, cache))


@dataclass(frozen=True)
class _OptImages:
    state: _OptState

    def read(self, rows: Tensor, prompts: Tensor) -> tuple[Tensor, LanguageState]:
        state = self.state.fork(rows)
        return state.extend(prompts, keep=1)[:, -1], state


@dataclass(frozen=True)
class _T5Images:
    model: Any
    images: Tensor  # [B, Q, D]

    def read(self, rows: Tensor, prompts: Tensor) -> tuple[Tensor, LanguageState]:
        return prefill(self.model, "t5", build_prefix(self.model, "t5", self.images[rows], prompts))
