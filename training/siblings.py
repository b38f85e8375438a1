"""What the trainings of ``tiny``'s siblings share: they start from ``tiny``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenizers import processors
from transformers import (
    Blip2ForConditionalGeneration,
    Blip2Processor,
    PreTrainedTokenizerFast,
)

from training.build import QUERIES, load_processor


def tokenizer_with_template(
    tokenizer: PreTrainedTokenizerFast, start: str | None = None, **settings: str | int
) -> PreTrainedTokenizerFast:
    """The vocabulary of ``tokenizer`` with its end token behind every text, ``start`` before it."""
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    end = tokenizer.eos_token
    before = f"{start} " if start else ""
    special = [(end, tokenizer.eos_token_id)]
    if start:
        special.insert(0, (start, backend.token_to_id(start)))
    backend.post_processor = processors.TemplateProcessing(
        single=f"{before}$A {end}", pair=f"{before}$A {end} $B {end}", special_tokens=special
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=end,
        unk_token=tokenizer.unk_token,
        pad_token=tokenizer.pad_token,
        padding_side="right",
        **settings,
    )


def load_tiny(
    folder: Path, build_tokenizer: Callable[[PreTrainedTokenizerFast], PreTrainedTokenizerFast]
) -> tuple[Blip2ForConditionalGeneration, Blip2Processor]:
    """The trained ``tiny``, and a processor with its image steps and another tokenizer."""
    tiny: Blip2ForConditionalGeneration = Blip2ForConditionalGeneration.from_pretrained(folder)
    processor = load_processor(folder)
    tokenizer = build_tokenizer(processor.tokenizer)
    return tiny.eval(), Blip2Processor(
        processor.image_processor, tokenizer, num_query_tokens=QUERIES
    )
