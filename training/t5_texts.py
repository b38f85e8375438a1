"""What a T5 language model reads and writes about a picture: one row a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerFast

from blip2cli.tiny.kinds import KINDS
from blip2cli.tiny.scenes import Scene
from training.evaluate import WritingModel
from training.gallery import embed_all
from training.labels import UNKNOWN
from training.padding import padded, padding_mask
from training.texts import Text


@dataclass(frozen=True)
class Rows:
    """R texts about pictures: ids int64, padded on the right.

    ``prompts`` [R, T] with ``prompt_mask`` [R, T], ``written`` [R, D] what the decoder reads,
    ``targets`` [R, D] its target tokens (UNKNOWN: padding).
    """

    prompts: Tensor
    prompt_mask: Tensor
    written: Tensor
    targets: Tensor

    @property
    def target_count(self) -> int:
        """Number of target tokens."""
        return int((self.targets != UNKNOWN).sum())


class RowMaker:
    """Turns texts into ``Rows``."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.end, self.pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        encode = tokenizer.backend_tokenizer.encode
        self.encode = lru_cache(200_000)(
            lambda text: (*encode(text, add_special_tokens=False).ids, self.end)
        )

    def target(self, text: Text) -> tuple[int, ...]:
        """Target tokens, the end included; the first word begins with a space always."""
        return self.encode(" " + text.target.strip())

    def rows(self, texts: Sequence[Text]) -> Rows:
        """The rows of these texts, in their order."""
        prompts = [self.encode(text.prompt) for text in texts]
        targets = [self.target(text) for text in texts]
        written = [(self.pad, *target[:-1]) for target in targets]
        return Rows(
            padded(prompts, self.pad),
            padding_mask(prompts),
            padded(written, self.pad),
            padded(targets, UNKNOWN),
        )


def read(model: WritingModel, query_output: Tensor, rows: Rows, **options: bool) -> Any:
    """What the T5 makes of query outputs [R, Q, W] and rows; ``logits`` is [R, D, V]."""
    language = model.language_model
    images = model.language_projection(query_output.to(model.dtype))
    embeds = torch.cat([images, language.shared(rows.prompts)], dim=1)
    seen = rows.prompt_mask.new_ones(images.shape[:2])
    return language(
        inputs_embeds=embeds,
        attention_mask=torch.cat([seen, rows.prompt_mask], dim=1),
        decoder_input_ids=rows.written,
        use_cache=False,
        **options,
    )


@dataclass(frozen=True)
class Places:
    """Targets of the auxiliary head: where the objects stand that the prompts name.

    ``words`` int64 [K, 2]: row and token of a name that only one object bears; ``across``
    float32 [K]: that object's place, 0 left to 1 right. ``pairs`` int64 [M, 2]: row and last token
    of a prompt that names two such; ``lead`` float32 [M]: how far the one that is asked about
    stands to the right of the other.
    """

    words: Tensor
    across: Tensor
    pairs: Tensor
    lead: Tensor


class PlaceFinder:
    """Finds the named objects in prompts."""

    def __init__(self, maker: RowMaker) -> None:
        self.maker = maker
        self.names = {kind: maker.encode(" " + kind)[:-1] for kind in KINDS}

    def places(self, prompts: Sequence[str], scenes: Sequence[Scene | None]) -> Places:
        """The places of what every prompt names in its scene (None: nothing is known)."""
        words, across, pairs, lead = [], [], [], []
        for row, (prompt, scene) in enumerate(zip(prompts, scenes, strict=True)):
            ids = self.maker.encode(prompt)
            found = self._named(ids, scene) if scene else []
            words += [(row, at) for at, _ in found]
            across += [x for _, x in found]
            if len(found) == 2:
                (_, first), (_, second) = found
                # "on which side of the dog is the cat?" asks about the second.
                later = "which side of the" in prompt.lower()
                pairs.append((row, len(ids) - 1))
                lead.append(second - first if later else first - second)
        return Places(
            torch.tensor(words, dtype=torch.long).view(-1, 2),
            torch.tensor(across, dtype=torch.float32),
            torch.tensor(pairs, dtype=torch.long).view(-1, 2),
            torch.tensor(lead, dtype=torch.float32),
        )

    def _named(self, ids: tuple[int, ...], scene: Scene) -> list[tuple[int, float]]:
        """The last token of every name in the prompt, and where its object stands."""
        found = []
        for placed in scene.objects:
            name = self.names[placed.kind]
            if scene.kinds.count(placed.kind) > 1:
                continue
            ends = range(len(name), len(ids) + 1)
            found += [(end - 1, placed.x) for end in ends if ids[end - len(name) : end] == name]
        return sorted(found)


# What a model shows its language model of pictures (uint8 [S, S, 3]) for the rows about them, whose
# pictures are numbered: query outputs [R, Q, W].
Look = Callable[[Any, Sequence[NDArray[np.uint8]], Sequence[int], Rows], Tensor]


def look(
    model: Blip2ForConditionalGeneration,
    pictures: Sequence[NDArray[np.uint8]],
    owners: Sequence[int],
    _: Rows,
) -> Tensor:
    """The ``Look`` of a BLIP-2, which is the same whatever is asked."""
    return embed_all(model, pictures)[1][list(owners)]


class Reader:
    """Judges texts about pictures: would greedy decoding write them?"""

    def __init__(self, model: WritingModel, maker: RowMaker, look: Look = look) -> None:
        self.model, self.maker, self.look = model, maker, look

    @torch.inference_mode()
    def __call__(
        self, pictures: Sequence[NDArray[np.uint8]], texts: Sequence[Sequence[Text]]
    ) -> list[list[bool]]:
        """For each picture (uint8 [S, S, 3]) and each of its texts: is it exactly right?"""
        results: list[list[bool]] = []
        for start in range(0, len(texts), 64):
            chunk = texts[start : start + 64]
            owners = [i for i, those in enumerate(chunk) for _ in those]
            rows = self.maker.rows([text for those in chunk for text in those])
            query_output = self.look(self.model, pictures[start : start + 64], owners, rows)
            scores = read(self.model, query_output, rows).logits
            right = (scores.argmax(-1) == rows.targets) | (rows.targets == UNKNOWN)
            whole = iter(right.all(1).tolist())
            results += [[next(whole) for _ in those] for those in chunk]
        return results
