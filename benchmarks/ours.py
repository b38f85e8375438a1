"""This package in the race: its loader and its model wrapper, as its commands use them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import torch
from torch import Tensor
from work import Setting, Work, sampled

from blip2cli.images.batch_stream import BatchStream, LoadedBatch
from blip2cli.images.preprocess import PixelSpec, normalize
from blip2cli.model.checkpoint.resolve import resolve
from blip2cli.model.placement.batch_size import batch_threads
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, LoaderOptions, ModelOptions
from blip2cli.pipeline.compute.threads import BatchThreads
from blip2cli.sources.base import ImageRef

Part = TypeVar("Part")


def model_options(path: str, dtype: str) -> ModelOptions:
    """The options of a precision of the race; ``int8`` computes its rest in bfloat16."""
    if dtype == "int8":
        quantized: dict[str, Any] = {"dtype": "bfloat16", "quantize": "int8"}
        return ModelOptions(path, **quantized)
    return ModelOptions(path, dtype=dtype)  # type: ignore[arg-type]


def batches(work: Work, setting: Setting, spec: PixelSpec) -> Iterator[LoadedBatch]:
    """The work's images; the loader itself chooses where it decodes them."""
    refs = [ImageRef(file, file) for file in work.files]
    with closing(BatchStream(refs, spec, LoaderOptions(setting.batch_size))) as stream:
        yield from stream


class _Ours:
    def __init__(self, path: str, dtype: str) -> None:
        self.model = Blip2.load(model_options(path, dtype))

    def plain(self, answers: Any) -> Any:
        """Answers as JSON has them."""
        return answers

    def in_batch_threads(
        self, do: Callable[[LoadedBatch, int], Part], work: Work, setting: Setting
    ) -> Iterator[Part]:
        """``do(batch, images before it)`` for every batch, in as many threads as a run uses."""
        before = 0
        with BatchThreads(lambda numbered: do(*numbered), batch_threads(self.model)) as threads:
            for batch in batches(work, setting, self.model.spec):
                threads.put((batch, before))
                before += len(batch.items)
                while (taken := threads.take()) is not None:
                    yield taken
            while threads.pending:
                last = threads.take(wait=True)
                assert last is not None
                yield last


class Write(_Ours):
    """Captions and answers."""

    def run(self, work: Work, setting: Setting) -> list[list[list[int]]]:
        """Do the work."""
        options = DecodeOptions(max_new_tokens=work.max_new_tokens, num_beams=work.num_beams)

        def write(batch: LoadedBatch, base: int) -> list[list[list[int]]]:
            features = self.model.features(batch.pixels)
            count = len(batch.items)
            prompts = [
                Prompt(
                    image,
                    text,
                    batch.items[image].file_name,
                    work.lengths[base + image][which] if work.lengths else None,
                )
                for image in range(count)
                for which, text in enumerate(work.prompts)
            ]
            texts = self.model.generate(features, prompts, options)
            tokens = [list(best[0].tokens) for best in texts]
            each = len(work.prompts)
            return [tokens[i : i + each] for i in range(0, len(tokens), each)]

        return [each for part in self.in_batch_threads(write, work, setting) for each in part]


class Choose(_Ours):
    """Closed questions."""

    def run(self, work: Work, setting: Setting) -> list[list[float]]:
        """Do the work."""

        def choose(batch: LoadedBatch, base: int) -> list[list[float]]:
            features = self.model.features(batch.pixels)
            prompts = [
                Prompt(i, work.prompts[0], item.file_name) for i, item in enumerate(batch.items)
            ]
            scores = self.model.score(features, prompts, [work.choices] * len(prompts))
            return [[choice.total for choice in image] for image in scores]

        return [each for part in self.in_batch_threads(choose, work, setting) for each in part]


class Embed(_Ours):
    """The mean of the Q-Former's outputs, ``blip2cli embed --kind qformer``."""

    def run(self, work: Work, setting: Setting) -> list[Tensor]:
        """Do the work."""

        def embed(batch: LoadedBatch, base: int) -> Tensor:
            return self.model.features(batch.pixels).query_output.float().mean(dim=1)

        return list(self.in_batch_threads(embed, work, setting))

    def plain(self, answers: list[Tensor]) -> list[list[float]]:
        """Answers as JSON has them."""
        return torch.cat(answers).tolist()


class Vision(_Ours):
    """Hidden states of the vision encoder, of images whose pixels are ready."""

    ready: Tensor | None = None

    @torch.inference_mode()
    def run(self, work: Work, setting: Setting) -> Tensor:
        """Do the work."""
        model = self.model
        if self.ready is None:
            (batch,) = batches(work, setting, model.spec)
            self.ready = normalize(batch.pixels, model.spec, model.dtype)
        states, _ = model.model.vision_model(self.ready)
        return states

    def plain(self, answers: Tensor) -> list[list[float]]:
        """Answers as JSON has them."""
        return sampled(answers.float())


class Pixels:
    """Files to normalised pixels, in one process."""

    def __init__(self, path: str, dtype: str) -> None:
        self.spec = resolve(path).pixel_spec
        self.dtype = getattr(torch, dtype)

    def run(self, work: Work, setting: Setting) -> list[Tensor]:
        """Do the work."""
        refs = [ImageRef(file, file) for file in work.files]
        options = LoaderOptions(setting.batch_size, workers=0)
        with BatchStream(refs, self.spec, options) as stream:
            return [normalize(batch.pixels, self.spec, self.dtype) for batch in stream]

    def plain(self, answers: list[Tensor]) -> list[str]:
        """A digest of each image's pixels."""
        return [digest(image) for batch in answers for image in batch]


def digest(pixels: Tensor) -> str:
    """Of the numbers [3, H, W], bit for bit."""
    return hashlib.blake2b(pixels.contiguous().numpy().tobytes(), digest_size=12).hexdigest()


KINDS = {
    "caption": Write,
    "ask": Write,
    "beam": Write,
    "choices": Choose,
    "embed": Embed,
    "vision": Vision,
    "pixels": Pixels,
}
