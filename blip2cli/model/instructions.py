"""InstructBLIP: prompts that the Q-Former reads beside the image.

What the language model reads of an image is then another for each prompt. The vision encoder runs
once an image all the same, and the Q-Former once for each distinct pair of image and prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch

from blip2cli.model.decoding.scheduler import MAX_SLOTS
from blip2cli.model.nets.blip2 import GenerationModel
from blip2cli.model.placement.single_thread import single_threaded
from blip2cli.model.text_reader import Pair, TextReader
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.tokenizer.text import TextCodec
from blip2cli.model.vision.features import ImageFeatures

# What is read where there is no prompt: the instruction for captions in zero-shot evaluation
# (arXiv 2305.06500, appendix).
DESCRIBE = "A short image description:"


@dataclass(frozen=True)
class _Read:
    """What was read of a batch of images."""

    rows: dict[Pair, int]
    features: ImageFeatures  # ``language_inputs`` has these rows


class Instructions(TextReader):
    """The Q-Former of an InstructBLIP, with its own tokenizer."""

    model: GenerationModel

    def __init__(self, model: GenerationModel, codec: TextCodec) -> None:
        super().__init__(model, codec)
        # Of batches in use: prompts that are decoded again need not be read again.
        self._last: WeakKeyDictionary[ImageFeatures, _Read] = WeakKeyDictionary()

    def fits(self, text: str) -> bool:
        """Whether the Q-Former has positions for a prompt."""
        return len(self.codec.encode(text)) <= self.positions

    def read(
        self, features: ImageFeatures, prompts: Sequence[Prompt]
    ) -> tuple[ImageFeatures, list[Prompt]]:
        """Features whose ``language_inputs`` [M, Q, Dl] have a row for each distinct pair of image
        and text, and the prompts for these rows, none without a text.

        Raises OptionError for a text that is too long.
        """
        pairs = [Pair(each.image, DESCRIBE if each.text is None else each.text) for each in prompts]
        read = self._last.get(features)
        if read is None or any(pair not in read.rows for pair in pairs):
            read = self._last[features] = self._run(features, list(dict.fromkeys(pairs)))
        return read.features, [
            replace(prompt, image=read.rows[pair], text=pair.text)
            for prompt, pair in zip(prompts, pairs, strict=True)
        ]

    @single_threaded
    @torch.inference_mode()
    def _run(self, features: ImageFeatures, pairs: Sequence[Pair]) -> _Read:
        states = self.multimodal(features, pairs).to(self.model.dtype)
        inputs = self.model.language_projection(states)
        rows = {pair: row for row, pair in enumerate(pairs)}
        return _Read(rows, replace(features, query_output=states, language_inputs=inputs))


def instructed(
    instructions: Instructions | None, features: ImageFeatures, prompts: Sequence[Prompt]
) -> tuple[ImageFeatures, Sequence[Prompt]]:
    """``Instructions.read``, where the Q-Former reads prompts; else both as they are."""
    if instructions is None or not prompts:
        return features, prompts
    return instructions.read(features, prompts)


def portions(
    instructions: Instructions | None, features: ImageFeatures, prompts: Sequence[Prompt]
) -> list[slice]:
    """Slices of ``prompts`` that are read one after the other; none: all are read at once.

    Where the Q-Former reads prompts, each of them has language inputs of its own, and keys and
    values of these. The batch size is for one of each an image (see ``placement/batch_size``), so
    that no more are read at once than there are images, or slots.
    """
    most = max(len(features), MAX_SLOTS)
    if instructions is None or len(prompts) <= most:
        return []
    return [slice(start, start + most) for start in range(0, len(prompts), most)]
