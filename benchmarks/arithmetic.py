"""The work of BLIP-2 in floating-point operations and bytes, part by part.

One multiply-add counts as two operations; only matrix products count, all else is small beside
them. Bytes are the weights that a decode step has to read from memory, once for the whole batch.
The limit of a workload is the time these need at the machine's best rates: products at its FLOP/s,
decode steps at whichever is slower, products or memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from machine import Machine

BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Part:
    """One part of the work."""

    name: str
    flops: float
    bytes: float = 0.0  # read from memory; 0 where products dominate by far

    def seconds(self, machine: Machine, dtype: str) -> float:
        """The least time for it."""
        return max(self.flops / machine.flops[dtype], self.bytes / machine.bandwidth)


def layer(rows: float, width: int, inner: int, seen: float, gated: bool = False) -> float:
    """A transformer layer over ``rows`` positions that each look at ``seen`` others."""
    weights = 4 * width * width + (3 if gated else 2) * width * inner
    return 2 * rows * weights + 4 * rows * seen * width


def vision(config: Any) -> float:
    """The vision encoder, one image."""
    patches = (config.image_size // config.patch_size) ** 2
    embed = 2 * patches * 3 * config.patch_size**2 * config.hidden_size
    each = layer(patches + 1, config.hidden_size, config.intermediate_size, patches + 1)
    return embed + config.num_hidden_layers * each


def qformer(config: Any, queries: int, patches: int) -> float:
    """The Q-Former over one image's patches."""
    width = config.hidden_size
    total = config.num_hidden_layers * layer(queries, width, config.intermediate_size, queries)
    crossing = len(range(0, config.num_hidden_layers, config.cross_attention_frequency))
    keys = 2 * 2 * patches * config.encoder_hidden_size * width
    return total + crossing * (4 * queries * width * width + keys + 4 * queries * patches * width)


def caption_parts(
    config: Any, dtype: str, batch: int, prompts: Sequence[int], lengths: Sequence[Sequence[int]]
) -> list[Part]:
    """The parts of one workload with OPT.

    ``prompts`` are the prompts' lengths in tokens, ``lengths`` those of the texts, by image. The
    image's own positions are read once an image; the prompts' positions once a prompt.
    """
    text, images = config.text_config, len(lengths)
    patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2 + 1
    queries = config.num_query_tokens
    width, inner, deep = text.hidden_size, text.ffn_dim, text.num_hidden_layers
    weights = deep * (4 * width * width + 2 * width * inner) + width * text.vocab_size
    own = deep * layer(queries, width, inner, queries / 2)
    asked = sum(deep * layer(t, width, inner, queries + t / 2) for t in prompts)
    tokens = sum(sum(row) for row in lengths)
    steps = tokens / (batch * len(prompts))  # with full slots
    decode = 2 * tokens * weights
    return [
        Part("vision", images * vision(config.vision_config)),
        Part("Q-Former", images * qformer(config.qformer_config, queries, patches)),
        Part("prefill of images", images * own),
        Part("prefill of prompts", images * asked),
        Part("decode", decode, steps * weights * BYTES[dtype]),
    ]


def limit(parts: Sequence[Part], machine: Machine, dtype: str) -> float:
    """Seconds that the machine needs at least."""
    return sum(part.seconds(machine, dtype) for part in parts)


def explain(parts: Sequence[Part], machine: Machine, dtype: str) -> list[str]:
    """The arithmetic in lines."""
    lines = []
    for part in parts:
        read = f", {part.bytes / 1e9:.1f} GB" if part.bytes else ""
        lines.append(
            f"{part.name}: {part.flops / 1e12:.3f} TFLOP{read}, "
            f"at least {part.seconds(machine, dtype):.2f} s"
        )
    return [*lines, f"together at least {limit(parts, machine, dtype):.2f} s"]
