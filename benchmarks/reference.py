"""The peers made of transformers' own classes; see ``peers`` for what they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import (
    AutoConfig,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList
from work import Setting, Work

Tokens = list[list[list[int]]]  # [image][prompt][token]


class Lengths(StoppingCriteria):
    """Ends each row at its own length; in a beam search all beams of it."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = torch.tensor(list(lengths))
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Any:
        self.step += 1
        return (self.lengths <= self.step).repeat_interleave(len(input_ids) // len(self.lengths))


class Processed:
    """Files to a model's inputs, with transformers' processor."""

    pinned = False  # worker processes put pixels where a GPU fetches them quickly

    def __init__(self, path: str, dtype: str) -> None:
        self.instructed = AutoConfig.from_pretrained(path).model_type == "instructblip"
        processor = InstructBlipProcessor if self.instructed else Blip2Processor
        self.processor = processor.from_pretrained(path)
        self.dtype = getattr(torch, dtype)

    def inputs(self, images: list[Image.Image], text: str | None) -> dict[str, Tensor]:
        """Processed pixels and, where there is a prompt, ids."""
        asked = None if text is None else [text] * len(images)
        found = self.processor(images=images, text=asked, return_tensors="pt")
        found["pixel_values"] = found["pixel_values"].to(self.dtype)
        return dict(found)

    def batches(self, work: Work, setting: Setting) -> Iterator[tuple[list[int], Tensor]]:
        """Numbers of the images and their pixels in the model's precision."""
        loader = DataLoader(
            _Files(work.files),
            setting.batch_size,
            collate_fn=self._pixels,
            num_workers=setting.workers,
            pin_memory=self.pinned and setting.workers > 0,
        )
        number = 0
        for pixels in loader:
            yield list(range(number, number + len(pixels))), pixels
            number += len(pixels)

    def plain(self, answers: Any) -> Any:
        """Answers as JSON has them."""
        return answers

    def _pixels(self, images: list[Image.Image]) -> Tensor:
        return self.inputs(images, None)["pixel_values"]


class Reference(Processed):
    """Those with a model."""

    def __init__(self, path: str, dtype: str) -> None:
        super().__init__(path, dtype)
        kind: Any = Blip2ForConditionalGeneration
        if self.instructed:
            kind = InstructBlipForConditionalGeneration
        self.model: Any = kind.from_pretrained(path, dtype=self.dtype).eval()
        self.processor.num_query_tokens = self.model.config.num_query_tokens
        ends = self.model.language_model.generation_config.eos_token_id
        self.ends = {ends} if isinstance(ends, int) else set(ends or ())

    def ids(self, prompt: str | None, count: int) -> dict[str, Tensor]:
        """Ids and mask of the same prompt for each image."""
        if prompt is None:
            return {}
        inputs = self.inputs([Image.new("RGB", (8, 8))], prompt)
        return {k: v.expand(count, -1) for k, v in inputs.items() if k != "pixel_values"}

    def options(self, work: Work, lengths: Sequence[int] | None) -> dict[str, Any]:
        """Arguments of ``generate``."""
        chosen: dict[str, Any] = {
            "max_new_tokens": max(lengths) if lengths else work.max_new_tokens,
            "num_beams": work.num_beams,
            "do_sample": False,
        }
        if lengths is not None:
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

    def before(self, inputs: dict[str, Tensor]) -> int:
        """How many ids of ``generate``'s rows stood there before the first new one."""
        if self.model.config.text_config.is_encoder_decoder:
            return 1
        asked = inputs.get("input_ids")
        return self.model.config.num_query_tokens + 1 if asked is None else asked.shape[1]


class Docs(Reference):
    """One image, one question at a time."""

    @torch.inference_mode()
    def run(self, work: Work, setting: Setting) -> Tokens:
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
                texts.append(self.new_tokens(ids[0].tolist(), self.before(inputs), length))
            found.append(texts)
        return found


class Batched(Reference):
    """A data loader, then ``generate`` for a batch; every question runs the image again."""

    @torch.inference_mode()
    def run(self, work: Work, setting: Setting) -> Tokens:
        """Do the work."""
        found: Tokens = []
        for numbers, pixels in self.batches(work, setting):
            texts: Tokens = [[] for _ in numbers]
            for which, prompt in enumerate(work.prompts):
                inputs = self.ids(prompt, len(numbers)) | {"pixel_values": pixels}
                lengths = [work.lengths[n][which] for n in numbers] if work.lengths else None
                ids = self.model.generate(**inputs, **self.options(work, lengths))
                self.collect(texts, ids, self.before(inputs), lengths)
            found += texts
        return found

    def collect(
        self, texts: Tokens, ids: Tensor, before: int, lengths: Sequence[int] | None
    ) -> None:
        """Add the new tokens of each row to its image's texts."""
        for row, text in enumerate(ids.tolist()):
            texts[row].append(self.new_tokens(text, before, lengths[row] if lengths else None))


class Cached(Batched):
    """``Batched``, with the image read once for all its questions."""

    @torch.inference_mode()
    def run(self, work: Work, setting: Setting) -> Tokens:
        """Do the work."""
        model = self.model
        found: Tokens = []
        for numbers, pixels in self.batches(work, setting):
            images = model.get_image_features(pixels, return_dict=True).pooler_output
            texts: Tokens = [[] for _ in numbers]
            for which, prompt in enumerate(work.prompts):
                ids = self.ids(prompt, len(numbers))["input_ids"][:, images.shape[1] :]
                embeds = torch.cat([images, model.get_input_embeddings()(ids)], dim=1)
                mask = torch.ones(embeds.shape[:2], dtype=torch.long)
                lengths = [work.lengths[n][which] for n in numbers] if work.lengths else None
                written = model.language_model.generate(
                    inputs_embeds=embeds, attention_mask=mask, **self.options(work, lengths)
                )
                self.collect(
                    texts, written, int(model.config.text_config.is_encoder_decoder), lengths
                )
            found += texts
        return found


class Forward(Reference):
    """Log-probabilities of given texts after a prompt, one ``forward`` each for a batch."""

    @torch.inference_mode()
    def run(self, work: Work, setting: Setting) -> list[list[float]]:
        """Do the work."""
        found: list[list[float]] = []
        for numbers, pixels in self.batches(work, setting):
            columns = [self._score(work.prompts[0], pixels, t) for t in self._texts(work, numbers)]
            found += [list(row) for row in zip(*columns, strict=True)]
        return found

    def _texts(self, work: Work, numbers: Sequence[int]) -> list[Tensor]:
        """Ids [images, T] of each choice; given ones differ from image to image."""
        if work.given is not None:  # run one image at a time: their lengths differ
            (number,) = numbers
            return [torch.tensor([ids]) for ids in work.given[number]]
        tokenizer = self.processor.tokenizer
        ids = [tokenizer(" " + choice, add_special_tokens=False) for choice in work.choices]
        return [torch.tensor([each["input_ids"]] * len(numbers)) for each in ids]

    def _score(self, prompt: str | None, pixels: Tensor, text: Tensor) -> list[float]:
        inputs = self.ids(prompt, len(pixels))
        if not inputs:
            start = [self.model.config.image_token_index] * self.model.config.num_query_tokens
            start.append(self.model.config.text_config.bos_token_id)
            inputs = {"input_ids": torch.tensor([start] * len(pixels))}
        if self.model.config.text_config.is_encoder_decoder:
            # The labels that are given are moved right by the model itself.
            logits = self.model(pixel_values=pixels, labels=text, **inputs).logits
        else:
            ids = torch.cat([inputs["input_ids"], text[:, :-1]], dim=1)
            mask = torch.ones_like(ids)
            wanted = text.shape[1]
            logits = self.model(
                pixel_values=pixels, input_ids=ids, attention_mask=mask, logits_to_keep=wanted
            ).logits
        logprobs = logits.float().log_softmax(dim=-1).gather(2, text[..., None])
        return logprobs.sum(dim=(1, 2)).tolist()


class Features(Reference):
    """The mean of the Q-Former's outputs, for a batch of images."""

    @torch.inference_mode()
    def run(self, work: Work, setting: Setting) -> list[Tensor]:
        """Do the work."""
        found = []
        for _, pixels in self.batches(work, setting):
            output = self.model.get_image_features(pixels, return_dict=True).qformer_outputs
            found.append(output.last_hidden_state.float().mean(dim=1))
        return found

    def plain(self, answers: list[Tensor]) -> list[list[float]]:
        """Answers as JSON has them."""
        return torch.cat(answers).tolist()


class Pixels(Processed):
    """The documentation's preprocessing: one image at a time."""

    def run(self, work: Work, setting: Setting) -> list[Tensor]:
        """Do the work."""
        return [
            self.inputs([Image.open(file).convert("RGB")], None)["pixel_values"]
            for file in work.files
        ]

    def plain(self, answers: list[Tensor]) -> list[str]:
        """A digest of each image's pixels."""
        from ours import digest

        return [digest(image) for batch in answers for image in batch]


class _Files(Dataset[Any]):
    def __init__(self, files: Sequence[str]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Image.Image:
        return Image.open(self.files[number]).convert("RGB")


_WRITE = {"docs": Docs, "batched": Batched, "cached": Cached}
KINDS: dict[str, dict[str, type[Any]]] = {
    "caption": _WRITE,
    "ask": _WRITE,
    "beam": _WRITE,
    "choices": {"forward": Forward},
    "embed": {"batched": Features},
    "pixels": {"docs": Pixels},
}
