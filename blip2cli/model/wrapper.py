"""The one shared model wrapper: weights in, features and text out."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blip2cli.errors import OptionError
from blip2cli.images.preprocess import PixelSpec, normalize
from blip2cli.model.beam import search
from blip2cli.model.checkpoint import Family
from blip2cli.model.decode import Written, generator_of, score_rules
from blip2cli.model.dtype import place
from blip2cli.model.features import ImageFeatures, compute_features
from blip2cli.model.limits import check_decoding
from blip2cli.model.load import end_tokens, load_model
from blip2cli.model.opt import OptReader
from blip2cli.model.prompts import Prompt
from blip2cli.model.quiet import hushed
from blip2cli.model.resolve import resolve
from blip2cli.model.slots import Reader, Request, Rules, write
from blip2cli.model.t5 import T5Reader
from blip2cli.model.text import TextCodec, load_codec
from blip2cli.options import DecodeOptions, ModelOptions

if TYPE_CHECKING:
    from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration


@dataclass(frozen=True)
class Generated:
    """One generated text."""

    text: str  # stripped; without the prompt and without special tokens
    tokens: tuple[int, ...]  # the new token ids, end token included when there is one
    logprob: float  # mean log-probability of ``tokens`` under the model's raw distribution


class Blip2:
    """A loaded BLIP-2 model. Build it with ``Blip2.load``."""

    def __init__(
        self,
        name: str,
        family: Family,
        model: Blip2ForConditionalGeneration,
        codec: TextCodec,
        spec: PixelSpec,
        reason: str,
    ) -> None:
        self.name = name
        self.family: Family = family
        self.spec = spec
        self.reason = reason  # why this device and precision
        self.model = model
        self.codec = codec
        self._end = end_tokens(model)

    @classmethod
    def load(cls, options: ModelOptions) -> Blip2:
        """Find, fetch and load a model.

        Raises ModelError when it cannot be found, fetched or loaded, and OptionError when
        device or precision do not fit it.
        """
        checkpoint = resolve(options.model, options.revision)
        with hushed():
            spec = PixelSpec.from_processor_config(checkpoint.image_processor())
            placement = place(
                options.device, options.dtype, checkpoint.family, checkpoint.weight_bytes
            )
            model = load_model(checkpoint, placement)
            codec = load_codec(checkpoint, model.config.text_config)
        return cls(options.model, checkpoint.family, model, codec, spec, placement.reason)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.query_tokens.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        return self.model.language_projection.weight.dtype

    def features(self, pixels_uint8: Tensor) -> ImageFeatures:
        """Run the vision side once on uint8 pixels [B, 3, H, W] of ``spec``'s size."""
        pixels = normalize(pixels_uint8.to(self.device), self.spec, self.dtype)
        return compute_features(self.model, pixels)

    @torch.inference_mode()
    def generate(
        self, features: ImageFeatures, prompts: Sequence[Prompt], options: DecodeOptions
    ) -> list[list[Generated]]:
        """Write ``options.num_return`` texts, best first, for each prompt, in order.

        The image side is not run again: prompts name rows of ``features``. Raises OptionError
        when the options contradict one another or a prompt is too long for the model.
        """
        check_decoding(options)
        ids = [self.codec.encode(prompt.text) for prompt in prompts]
        for prompt, asked in zip(prompts, ids, strict=True):
            self._check_room(prompt, len(asked), options)
        with hushed():
            written = self._write(features, prompts, ids, options)
        found = [
            [Generated(self.codec.decode(w.tokens), tuple(w.tokens), w.logprob) for w in texts]
            for texts in written
        ]
        if options.sampling:
            for texts in found:
                texts.sort(key=lambda text: -text.logprob)
        return found

    def _write(
        self,
        features: ImageFeatures,
        prompts: Sequence[Prompt],
        ids: Sequence[tuple[int, ...]],
        options: DecodeOptions,
    ) -> list[list[Written]]:
        """``options.num_return`` texts for each prompt; draws in the order of their seeds."""
        reader, rules = self._reader(features), self._rules(options)
        most = options.max_new_tokens
        requests = [
            Request(prompt.image, asked, min(most, prompt.max_new_tokens or most), most)
            for prompt, asked in zip(prompts, ids, strict=True)
        ]
        if options.num_beams > 1:
            return search(reader, requests, self._end, rules, options)
        if options.sampling:
            requests = [
                replace(request, generator=generator_of(options.seed, prompt.name, n))
                for request, prompt in zip(requests, prompts, strict=True)
                for n in range(options.num_return)
            ]
        texts = iter(write(reader, requests, self._end, rules))
        return [[next(texts) for _ in range(options.num_return)] for _ in prompts]

    def _rules(self, options: DecodeOptions) -> Rules | None:
        """None where the raw scores decide."""

        @functools.cache
        def rules(before: int) -> Any:
            return score_rules(options, self._end, before, self.device)

        return rules if rules(0) else None

    def _reader(self, features: ImageFeatures) -> Reader:
        language = self.model.language_model
        if self.family == "t5":
            return T5Reader(language, features.language_inputs)
        placeholder = self.model.config.image_token_index
        if placeholder is None:  # an id outside the vocabulary, which no rule touches
            placeholder = language.config.vocab_size
        return OptReader(language, features.language_inputs, placeholder)

    def _check_room(self, prompt: Prompt, length: int, options: DecodeOptions) -> None:
        """Refuse what would run past the language model's last position."""
        if self.family == "t5":
            return  # relative positions have no last one
        room = self.model.language_model.config.max_position_embeddings
        used = self.model.config.num_query_tokens + length
        if used + options.max_new_tokens > room:
            raise OptionError(
                f"the prompt for {prompt.name} is {length} tokens long; with the image and "
                f"{options.max_new_tokens} new tokens that is more than the {room} the model has "
                "room for: shorten it or lower --max-new-tokens."
            )
