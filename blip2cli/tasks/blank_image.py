"""The blank image, and how likely choices are under it.

The blank image is a picture of one colour: the mean that the model's normalisation subtracts, as
8-bit numbers (123, 117, 104 for BLIP-2), so that its ``pixel_values`` are zero but for rounding, at
most 0.5 / 255 of a channel before the division by its deviation. It goes through the model as any
other picture: a file of that colour is answered with the same numbers.

What the model says of a question's choices under it is the same for every image that is asked the
question. It is computed once for each question, in each replica of the model, when the question is
first asked; the bits depend on neither batch nor order.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from blip2cli.tasks.prompting import PreparedQuestion

if TYPE_CHECKING:
    import torch

    from blip2cli.images.preprocess import PixelSpec
    from blip2cli.model.vision.features import ImageFeatures
    from blip2cli.model.wrapper import Blip2

# Log-probabilities that are held for a model, at most: 32 MB. Tables have questions of each image.
_MOST = 1 << 20

Asked = tuple[str | None, tuple[str, ...]]  # a prompt with its choices


def blank_logprobs(model: Blip2, questions: Sequence[PreparedQuestion]) -> list[list[float]]:
    """The log-probability of every choice of every question under the blank image, in order.

    Of the whole text with the end after it, in nats. Raises what ``model.score`` raises.
    """
    with _lock:
        scores = _scores.setdefault(model, BlankScores())
    return scores.of(model, questions)


def blank_pixels(spec: PixelSpec) -> torch.Tensor:
    """The blank image as a model of this ``spec`` reads it: uint8 [1, 3, H, W]."""
    import torch

    colour = [min(255, max(0, round(mean / spec.rescale_factor))) for mean in spec.mean]
    pixels = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1)
    return pixels.expand(1, 3, spec.height, spec.width).contiguous()


class BlankScores:
    """What one model said of choices under the blank image; several threads may ask at once."""

    def __init__(self, most: int = _MOST) -> None:
        """``most`` log-probabilities are held; those asked for longest ago go first."""
        self._most = most
        self._lock, self._features_lock = threading.Lock(), threading.Lock()
        self._features: ImageFeatures | None = None
        self._found: OrderedDict[Asked, Future[list[float]]] = OrderedDict()
        self._size = 0  # log-probabilities in them

    def of(self, model: Blip2, questions: Sequence[PreparedQuestion]) -> list[list[float]]:
        """As ``blank_logprobs``. Who is the first to ask a question computes, others wait."""
        asked = [(question.prompt.text, question.choices) for question in questions]
        new: dict[Asked, Future[list[float]]] = {}
        with self._lock:
            for key in asked:
                if key not in self._found:
                    self._found[key] = new[key] = Future()
                    self._size += len(key[1])
                self._found.move_to_end(key)
            futures = [self._found[key] for key in asked]
            while self._size > self._most:
                key, _ = self._found.popitem(last=False)
                self._size -= len(key[1])
        if new:
            try:
                self._compute(model, dict(zip(asked, questions, strict=True)), new)
            except BaseException as error:
                self._fail(new, error)
                raise
        return [future.result() for future in futures]

    def _compute(
        self,
        model: Blip2,
        questions: dict[Asked, PreparedQuestion],
        new: dict[Asked, Future[list[float]]],
    ) -> None:
        with self._features_lock:
            if self._features is None:
                self._features = model.features(blank_pixels(model.spec))
        # A copy has a decoder session of its own, which is freed with it.
        features = replace(self._features)
        prompts = [replace(questions[key].prompt, image=0) for key in new]
        found = model.score(features, prompts, [key[1] for key in new])
        for future, likelihoods in zip(new.values(), found, strict=True):
            future.set_result([likelihood.total for likelihood in likelihoods])

    def _fail(self, new: dict[Asked, Future[list[float]]], error: BaseException) -> None:
        """Forget questions that could not be scored; whoever waits for them fails as well."""
        with self._lock:
            for key, future in new.items():
                if self._found.get(key) is future:
                    del self._found[key]
                    self._size -= len(key[1])
        for future in new.values():
            if not future.done():
                future.set_exception(error)


_scores: WeakKeyDictionary[Blip2, BlankScores] = WeakKeyDictionary()
_lock = threading.Lock()
