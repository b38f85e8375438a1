"""A loaded BLIP-2 model: pixels to features, features and prompts to texts or scores."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from blip2cli.images.preprocess import PixelSpec, normalize
from blip2cli.model.checkpoint.resolve import resolve_model
from blip2cli.model.checkpoint.weight_files import Checkpoint
from blip2cli.model.decoding.session import DecoderSession
from blip2cli.model.families import Family
from blip2cli.model.generation import Generated, generate_tokens
from blip2cli.model.instructions import Instructions, instructed, portions
from blip2cli.model.language_texts import language_states
from blip2cli.model.limits import check_length, check_prompt, check_writes, fits
from blip2cli.model.loading.load import load_model
from blip2cli.model.nets.blip2 import Blip2Net, GenerationModel, RetrievalModel
from blip2cli.model.placement.dtype import place
from blip2cli.model.placement.single_thread import needs_single_thread, single_threaded
from blip2cli.model.retrieval import Retrieval
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.tokenizer.text import TextCodec, load_codec
from blip2cli.model.vision.chunked_vision import ChunkedVision
from blip2cli.model.vision.features import ImageFeatures, compute_features
from blip2cli.model.vision.upload import Upload
from blip2cli.options import DecodeOptions, ModelOptions
from blip2cli.system.malloc import keep_freed_memory

if TYPE_CHECKING:
    from blip2cli.model.decoding.cuda_graphs import CudaGraphCache
    from blip2cli.model.decoding.scoring import Likelihood
    from blip2cli.model.nets.vision import VisionModel
    from blip2cli.model.ranker import Ranker


class Blip2:
    """A loaded BLIP-2 model. Build it with ``Blip2.load``.

    What it can do follows from its family: a model with a language model (``writes``) has
    ``generate``; a retrieval model has ``retrieval``, which scores images against texts. The image
    side, ``features``, is the same in both.
    """

    def __init__(
        self,
        name: str,
        family: Family,
        model: Blip2Net,
        codec: TextCodec,
        spec: PixelSpec,
        reason: str,
        compute: Callable[[Tensor], ImageFeatures] | None = None,
    ) -> None:
        self.name = name
        self.family = family
        self.spec = spec
        self.reason = reason  # why this device and precision
        self.model = model
        self.codec = codec
        self.runs_single_threaded = needs_single_thread(model)
        # Image features of normalised pixels; None: by the network itself.
        if compute is None and self.device.type == "cpu":
            compute = ChunkedVision(model)
        self._compute = compute or functools.partial(compute_features, model)
        self.ranker: Ranker | None = None  # set by ``load_ranked``
        self.retrieval = Retrieval(model, codec) if isinstance(model, RetrievalModel) else None
        self.instructions: Instructions | None = None  # a Q-Former that reads prompts as well
        if isinstance(model, GenerationModel) and codec.instructions is not None:
            self.instructions = Instructions(model, codec.instructions)
        self._end = model.config.text_config.end_tokens if self.writes else ()
        self._sessions: WeakKeyDictionary[ImageFeatures, DecoderSession] = WeakKeyDictionary()
        self._upload = Upload(self.device)
        self._graphs: CudaGraphCache | None = None
        if self.writes and self.device.type == "cuda" and model.stream is None:
            from blip2cli.model.placement.graph_cache import graph_cache

            self._graphs = graph_cache(model)

    @classmethod
    def load(
        cls,
        options: ModelOptions,
        checkpoint: Checkpoint | None = None,
        vision: VisionModel | None = None,
    ) -> Blip2:
        """Load ``checkpoint``; None: find the model of that name, and fetch it.

        ``vision`` is as of ``load_model``. Raises ModelError when it cannot be found, fetched or
        loaded, and OptionError when device or precision do not fit it, or it cannot be compiled.
        """
        checkpoint = checkpoint or resolve_model(options)
        spec = checkpoint.pixel_spec
        placement = place(
            options.device,
            options.dtype,
            checkpoint.family,
            checkpoint.weight_bytes,
            options.quantize,
        )
        if options.compile:
            from blip2cli.model.vision import compiled

            compiled.check_compilable(placement.device)
        model = load_model(checkpoint, placement, options=options, vision=vision)
        if placement.device.type == "cpu":
            keep_freed_memory()  # only now: what loading took goes back
        codec = load_codec(checkpoint, model.config.text_config)
        merged = "".join(f", {adapter} merged" for adapter in checkpoint.adapters)
        compute, reason = None, placement.reason + model.placed + merged
        if options.compile:
            compute = compiled.CompiledVision(options.model, model, spec)
            reason += f", image side compiled in {compute.seconds:.1f} s"
        return cls(options.model, checkpoint.family, model, codec, spec, reason, compute)

    @property
    def writes(self) -> bool:
        """Whether there is a language model, so that ``generate`` works."""
        return self.family.writes

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        return self.model.dtype

    @single_threaded
    def features(self, pixels_uint8: Tensor) -> ImageFeatures:
        """Run the vision side once on uint8 pixels [B, 3, H, W] of ``spec``'s size."""
        pixels = normalize(self._upload(pixels_uint8), self.spec, self.dtype)
        return self._compute(pixels)

    @single_threaded
    @torch.inference_mode()
    def text_states(self, texts: Sequence[str]) -> list[Tensor]:
        """The language model's last hidden state of each text, [T, Dl] float32; T5: its encoder's.

        ``get_text_features`` of transformers' ``Blip2Model``. Raises OptionError for a retrieval
        model, and for a text that is too long.
        """
        family = check_writes(self.name, self.family, "read texts with its retrieval half")
        ids = [self.codec.encode(text) for text in texts]
        check_length(texts, ids, self._text_positions)
        assert isinstance(self.model, GenerationModel)
        return language_states(family, self.model, ids)

    @property
    def text_width(self) -> int:
        """Dl, the width of the language model's states; meaningless in a retrieval model."""
        # A small OPT projects its states to another width before it gives them out.
        return self.model.config.text_config.embed_width

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise OptionError for the first text without an image that is too long."""
        most = self._text_positions
        if most is None:
            return
        # A text has no more tokens than twice its bytes: short ones need not be tokenized.
        long = [text for text in texts if 2 * len(text.encode()) + 2 > most]
        check_length(long, [self.codec.encode(text) for text in long], most)

    @property
    def _text_positions(self) -> int | None:
        """The most tokens a text without an image may have; None: no limit."""
        if self.retrieval is not None:
            return self.retrieval.positions
        return self.model.config.text_config.positions

    @single_threaded
    @torch.inference_mode()
    def generate(
        self, features: ImageFeatures, prompts: Sequence[Prompt], options: DecodeOptions
    ) -> list[list[Generated]]:
        """``options.num_captions`` texts, best first, for each prompt, in order.

        The image side is not run again: prompts name rows of ``features``. Raises OptionError when
        a prompt is too long for the model, or the model is a retrieval model.
        """
        check_writes(self.name, self.family)
        if parts := portions(self.instructions, features, prompts):
            return [t for part in parts for t in self.generate(features, prompts[part], options)]
        features, prompts = instructed(self.instructions, features, prompts)
        ids = [self.codec.encode(prompt.text) for prompt in prompts]
        for prompt, prompt_ids in zip(prompts, ids, strict=True):
            check_prompt(self.model.config, prompt.name, len(prompt_ids), options.max_new_tokens)
        session = self._session(features)
        found = [
            [Generated(self.codec.decode(s.tokens), tuple(s.tokens), s.mean_logprob) for s in texts]
            for texts in generate_tokens(session, prompts, ids, options, self._end)
        ]
        if options.sampling:
            for texts in found:
                texts.sort(key=lambda text: -text.logprob)
        return found

    @single_threaded
    @torch.inference_mode()
    def score(
        self,
        features: ImageFeatures,
        prompts: Sequence[Prompt],
        choices: Sequence[Sequence[str]],
    ) -> list[list[Likelihood]]:
        """How likely each of ``choices[i]`` is as the answer to ``prompts[i]``, in order.

        The image side is not run again: prompts name rows of ``features``. Raises OptionError
        when the model's tokenizer cannot tell choices apart, a prompt is too long, or the model
        is a retrieval model.
        """
        from blip2cli.model.decoding.scoring import ChoicePrompt, score_choices

        check_writes(self.name, self.family)
        if parts := portions(self.instructions, features, prompts):
            return [s for part in parts for s in self.score(features, prompts[part], choices[part])]
        features, prompts = instructed(self.instructions, features, prompts)
        encoded: dict[tuple[str, tuple[str, ...]], tuple[tuple[int, ...], ...]] = {}
        scored = []
        for prompt, listed in zip(prompts, choices, strict=True):
            text, gap = self.family.split_gap(prompt.text or "")
            ids = self.codec.encode(text)
            key = (gap, tuple(listed))
            if key not in encoded:
                encoded[key] = self.encode_choices(listed, gap)
            scored.append(ChoicePrompt(prompt.image, ids, encoded[key]))
            longest = max(map(len, encoded[key]))
            check_prompt(self.model.config, prompt.name, len(ids), longest)
        return score_choices(self._session(features), scored, self._end) if scored else []

    @single_threaded
    @torch.inference_mode()
    def scores(
        self, features: ImageFeatures, text: str | None = None, tokens: Tensor | None = None
    ) -> Tensor:
        """The language model's logits [B, T + 1, V] for each image.

        They are those of the token after the prompt ``text``, and after each of ``tokens``
        [B, T] of its continuation. Raises OptionError for a retrieval model.
        """
        check_writes(self.name, self.family)
        asked = [Prompt(row, text, "") for row in range(len(features))]
        features, prompts = instructed(self.instructions, features, asked)
        pairs = [(prompt.image, self.codec.encode(prompt.text)) for prompt in prompts]
        following = [[] for _ in pairs] if tokens is None else tokens.tolist()
        length = 0 if tokens is None else tokens.shape[1]
        session = self._session(features)
        return session.logits(
            session.continuation_states(pairs, range(len(pairs)), following, length)
        )

    def encode_choices(
        self, choices: Sequence[str], gap: str | None = None
    ) -> tuple[tuple[int, ...], ...]:
        """Token ids of each choice behind ``gap`` (by default that of an answer).

        Raises OptionError when two have the same ids, or one has none.
        """
        if gap is None:
            _, gap = self.family.split_gap(":")
        return self.codec.encode_choices(choices, gap)

    def fits(self, text: str, new_tokens: int) -> bool:
        """Whether a prompt and ``new_tokens`` after it are within the model's positions."""
        if self.instructions is not None and not self.instructions.fits(text):
            return False
        return fits(self.model.config, len(self.codec.encode(text)), new_tokens)

    def _session(self, features: ImageFeatures) -> DecoderSession:
        """The decoder session of these images, with its caches."""
        if features not in self._sessions:
            family = check_writes(self.name, self.family)
            session = family.open_session(self.model, features)
            if self._graphs is not None:
                from blip2cli.model.decoding.cuda_graphs import CudaGraphSession

                session = CudaGraphSession(session, self._graphs)
            self._sessions[features] = session
        return self._sessions[features]

    @property
    def trouble(self) -> str | None:
        """Why decoding is slower than it might be, once that turned out."""
        failure = None if self._graphs is None else self._graphs.failure
        return failure and f"decode steps run without CUDA graphs ({failure})"

    def free(self) -> None:
        """Free what is cached between batches, because memory is short."""
        if self._graphs is not None:
            self._graphs.clear()
