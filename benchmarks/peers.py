"""Those who race: what people run today, and this package.

Each is made of a model directory and a precision and does one ``Work``: files in, token ids out.
Reading and decoding the files is part of it, loading the model is not.

* ``docs``: the documentation's own loop: processor and ``generate``, one image and one question
  at a time.
* ``batched``: what a careful user writes: a ``DataLoader`` that applies the processor, then
  ``generate`` for a batch. The batch size is given; the race tries several and takes the fastest.
* ``cached``: that, with image features computed once and handed to the language model for every
  question.
* ``ours``: this package's loader and model wrapper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import Blip2ForConditionalGeneration, Blip2Processor
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList
from work import Work

from blip2cli.images.loader import load_batches
from blip2cli.model.prompts import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, LoaderOptions, ModelOptions
from blip2cli.sources.base import ImageRef

Tokens = list[list[list[int]]]  # [image][prompt][token]


class Lengths(StoppingCriteria):
    """Ends each row at its own length."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = torch.tensor(list(lengths))
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> Any:
        self.step += 1
        return self.lengths <= self.step


class Reference:
    """What the peers made of transformers' own classes share."""

    def __init__(self, path: str, dtype: str, batch_size: int) -> None:
        self.processor = Blip2Processor.from_pretrained(path)
        self.processor.num_query_tokens = 32
        self.model: Any = Blip2ForConditionalGeneration.from_pretrained(
            path, dtype=getattr(torch, dtype)
        ).eval()
        self.dtype = getattr(torch, dtype)
        self.batch_size = batch_size
        ends = self.model.language_model.generation_config.eos_token_id
        self.ends = {ends} if isinstance(ends, int) else set(ends or ())

    def inputs(self, images: list[Image.Image], text: str | None) -> dict[str, torch.Tensor]:
        """Processed pixels and, where there is a prompt, ids."""
        asked = None if text is None else [text] * len(images)
        found = self.processor(images=images, text=asked, return_tensors="pt")
        found["pixel_values"] = found["pixel_values"].to(self.dtype)
        return dict(found)

    def options(self, work: Work, lengths: Sequence[int] | None) -> dict[str, Any]:
        """Arguments of ``generate``."""
        chosen: dict[str, Any] = {
            "max_new_tokens": max(lengths) if lengths else work.max_new_tokens,
            "num_beams": work.num_beams,
            "do_sample": False,
        }
        if lengths is not None and work.num_beams == 1:
            chosen["stopping_criteria"] = StoppingCriteriaList([Lengths(lengths)])
        return chosen

    def new_tokens(self, row: list[int], before: int, length: int | None) -> list[int]:
        """A row of ``generate`` without what stood before it, up to its end."""
        tokens = row[before:]
        if length is not None:
            return tokens[:length]
        for place, token in enumerate(tokens):
            if token in self.ends:
                return tokens[: place + 1]
        return tokens


class Docs(Reference):
    """One image, one question at a time."""

    @torch.inference_mode()
    def run(self, work: Work) -> Tokens:
        """Do the work."""
        found: Tokens = []
        for number, file in enumerate(work.files):
            image = Image.open(file).convert("RGB")
            texts = []
            for which, prompt in enumerate(work.prompts):
                length = work.lengths[number][which] if work.lengths else None
                inputs = self.inputs([image], prompt)
                ids = self.model.generate(
                    **inputs, **self.options(work, None if length is None else [length])
                )
                before = _before(self.model, inputs, ids)
                texts.append(self.new_tokens(ids[0].tolist(), before, length))
            found.append(texts)
        return found


class Batched(Reference):
    """A data loader, then ``generate`` for a batch; every question runs the image again."""

    @torch.inference_mode()
    def run(self, work: Work) -> Tokens:
        """Do the work."""
        found: Tokens = []
        for numbers, pixels in self.batches(work):
            texts: Tokens = [[] for _ in numbers]
            for which, prompt in enumerate(work.prompts):
                inputs = self.ids(prompt, len(numbers)) | {"pixel_values": pixels}
                lengths = [work.lengths[n][which] for n in numbers] if work.lengths else None
                ids = self.model.generate(**inputs, **self.options(work, lengths))
                before = _before(self.model, inputs, ids)
                for row, text in enumerate(ids.tolist()):
                    length = lengths[row] if lengths else None
                    texts[row].append(self.new_tokens(text, before, length))
            found += texts
        return found

    def batches(self, work: Work) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Numbers of the images and their pixels in the model's precision."""
        loader = DataLoader(_Files(work.files), self.batch_size, collate_fn=self._pixels)
        number = 0
        for pixels in loader:
            yield list(range(number, number + len(pixels))), pixels
            number += len(pixels)

    def ids(self, prompt: str | None, count: int) -> dict[str, torch.Tensor]:
        """Ids and mask of the same prompt for each of so many images."""
        if prompt is None:
            return {}
        blank = Image.new("RGB", (8, 8))
        inputs = self.inputs([blank], prompt)
        return {k: v.expand(count, -1) for k, v in inputs.items() if k != "pixel_values"}

    def _pixels(self, images: list[Image.Image]) -> torch.Tensor:
        return self.inputs(images, None)["pixel_values"]


class Cached(Batched):
    """``Batched``, with the image read once for all its questions."""

    @torch.inference_mode()
    def run(self, work: Work) -> Tokens:
        """Do the work."""
        model = self.model
        found: Tokens = []
        for numbers, pixels in self.batches(work):
            seen = model.vision_model(pixels).last_hidden_state
            queries = model.query_tokens.expand(len(numbers), -1, -1)
            output = model.qformer(query_embeds=queries, encoder_hidden_states=seen)
            images = model.language_projection(output.last_hidden_state.to(seen.dtype))
            texts: Tokens = [[] for _ in numbers]
            for which, prompt in enumerate(work.prompts):
                ids = self.ids(prompt, len(numbers))["input_ids"][:, images.shape[1] :]
                embeds = torch.cat([images, model.get_input_embeddings()(ids)], dim=1)
                mask = torch.ones(embeds.shape[:2], dtype=torch.long)
                lengths = [work.lengths[n][which] for n in numbers] if work.lengths else None
                written = model.language_model.generate(
                    inputs_embeds=embeds, attention_mask=mask, **self.options(work, lengths)
                )
                before = int(model.config.text_config.is_encoder_decoder)
                for row, text in enumerate(written.tolist()):
                    length = lengths[row] if lengths else None
                    texts[row].append(self.new_tokens(text, before, length))
            found += texts
        return found


class Ours:
    """This package."""

    def __init__(self, path: str, dtype: str, batch_size: int) -> None:
        self.model = Blip2.load(ModelOptions(path, dtype=dtype))  # type: ignore[arg-type]
        self.batch_size = batch_size

    def run(self, work: Work) -> Tokens:
        """Do the work."""
        options = DecodeOptions(max_new_tokens=work.max_new_tokens, num_beams=work.num_beams)
        refs = [ImageRef(file, file) for file in work.files]
        found: Tokens = []
        with load_batches(refs, self.model.spec, LoaderOptions(self.batch_size)) as batches:
            for batch in batches:
                features = self.model.features(batch.pixels)
                count, base = len(batch.items), len(found)
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
                found += [tokens[i : i + each] for i in range(0, len(tokens), each)]
        return found


class _Files(Dataset[Any]):
    def __init__(self, files: Sequence[str]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Image.Image:
        return Image.open(self.files[number]).convert("RGB")


def _before(model: Any, inputs: dict[str, torch.Tensor], ids: torch.Tensor) -> int:
    """How many ids of ``generate``'s rows stood there before the first new one."""
    if model.config.text_config.is_encoder_decoder:
        return 1
    asked = inputs.get("input_ids")
    return model.config.num_query_tokens + 1 if asked is None else asked.shape[1]


PEERS: dict[str, Any] = {"docs": Docs, "batched": Batched, "cached": Cached, "ours": Ours}
