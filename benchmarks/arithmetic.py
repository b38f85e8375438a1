"""The work of BLIP-2 in floating-point operations and bytes, part by part.

One multiply-add counts as two operations; only matrix products count, all else is small beside
them. Bytes are the weights that a decode step has to read from memory, once for all its rows.
The limit of a workload is the time these need at the machine's best rates: products at its FLOP/s,
decode steps at whichever is slower, products or memory. Whatever can be shared is counted once:
an image's features and, with OPT, its positions for all its questions, and what these begin with;
a prompt's positions for all its choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from machine import BYTES, Machine


@dataclass(frozen=True)
class Part:
    """One part of the work."""

    name: str
    flops: float
    bytes: float = 0.0  # read from memory; 0 where products dominate by far

    def seconds(self, machine: Machine, dtype: str) -> float:
        """The least time for it."""
        return max(self.flops / machine.flops[dtype], self.bytes / machine.bandwidth)


@dataclass(frozen=True)
class Texts:
    """What is read and written of every image, in tokens."""

    prompts: tuple[int, ...]  # length of each prompt, begin token included
    lengths: tuple[tuple[int, ...], ...]  # [image][prompt] of what is written
    beams: int = 1
    choices: tuple[int, ...] = ()  # lengths of the choices after each prompt; nothing is written
    words: tuple[int, ...] = ()  # length of each prompt as the Q-Former reads it, where it does
    repeated: int = 0  # positions of prompts that another prompt about the image begins with

    def decode(self, images_at_once: int) -> tuple[int, int, float]:
        """First tokens, later ones (of all beams), and the least number of steps for the later.

        A step appends one token to each text of ``images_at_once`` images; the longest text
        needs a step a token, however many others there are.
        """
        lengths = [length for row in self.lengths for length in row]
        later = self.beams * sum(length - 1 for length in lengths)
        rows = images_at_once * len(self.prompts) * self.beams
        return len(lengths), later, max(later / rows, max(lengths, default=1) - 1)


def image_parts(config: Any, images: int, words: Sequence[int] = ()) -> list[Part]:
    """The image side: vision encoder, and Q-Former, once for each prompt of ``words`` tokens."""
    seen = config.vision_config
    patches = (seen.image_size // seen.patch_size) ** 2
    embed = 2 * patches * 3 * seen.patch_size**2 * seen.hidden_size
    each = _layer(patches + 1, seen.hidden_size, seen.intermediate_size, patches + 1)
    vision = embed + seen.num_hidden_layers * each
    query = _qformer(config.qformer_config, config.num_query_tokens, patches + 1, words or (0,))
    return [Part("vision", images * vision), Part("Q-Former", images * query)]


def text_parts(config: Any, dtype: str, images: int, at_once: int, texts: Texts) -> list[Part]:
    """What the language model does after the image side; ``at_once`` images share a step."""
    text = config.text_config
    times = len(texts.words) or 1
    queries = times * config.num_query_tokens
    project = 2 * queries * config.qformer_config.hidden_size * text.hidden_size
    family = _t5 if text.is_encoder_decoder else _opt
    parts = family(text, config.num_query_tokens, dtype, images, at_once, texts)
    return [Part("language projection", images * project), *parts]


def limit(parts: Sequence[Part], machine: Machine, dtype: str) -> float:
    """Seconds that the machine needs at least."""
    return sum(part.seconds(machine, dtype) for part in parts)


def explain(parts: Sequence[Part], machine: Machine, dtype: str) -> list[str]:
    """The arithmetic in lines."""
    lines = []
    for part in parts:
        read = f", {part.bytes / 1e9:.3g} GB read" if part.bytes else ""
        lines.append(
            f"{part.name}: {part.flops / 1e9:,.1f} GFLOP{read}, "
            f"at least {part.seconds(machine, dtype):.3f} s"
        )
    return [*lines, f"together at least {limit(parts, machine, dtype):.3f} s"]


def _layer(rows: float, width: int, inner: int, seen: float) -> float:
    """A transformer layer over ``rows`` positions that each look at ``seen`` others."""
    return 2 * rows * (4 * width * width + 2 * width * inner) + 4 * rows * seen * width


def _qformer(config: Any, queries: int, patches: int, words: Sequence[int]) -> float:
    """Self-attention and feed-forward of queries and words, and cross-attention of the queries,
    where there is some, to keys that are the same for all prompts."""
    width = config.hidden_size
    rows = [queries + each for each in words]
    deep, inner = config.num_hidden_layers, config.intermediate_size
    total = deep * sum(_layer(each, width, inner, each) for each in rows)
    crossing = len(range(0, deep, config.cross_attention_frequency))
    keys = 2 * 2 * patches * config.encoder_hidden_size * width
    reading = 4 * queries * width * width + 4 * queries * patches * width
    return total + crossing * (keys + len(rows) * reading)


def _inner(text: Any) -> float:
    """Width of a feed-forward layer; a gated one has three matrices, not two."""
    return text.ffn_dim if hasattr(text, "ffn_dim") else 1.5 * text.intermediate_size


def _opt(
    text: Any, queries: int, dtype: str, images: int, at_once: int, texts: Texts
) -> list[Part]:
    width, deep, inner = text.hidden_size, text.num_hidden_layers, _inner(text)
    weights = deep * (4 * width * width + 2 * width * inner)
    head = width * text.vocab_size

    def read(positions: float, before: float) -> float:
        """Positions that see those ``before`` them and, causally, half of one another."""
        return deep * _layer(positions, width, inner, before + positions / 2)

    again = deep * _layer(texts.repeated, width, inner, queries)
    prompts = sum(read(n, queries) for n in texts.prompts) - again
    parts = [
        Part("prefill of images", (len(texts.words) or 1) * images * read(queries, 0)),
        Part("prefill of prompts", images * prompts),
    ]
    if texts.choices:
        follow = sum(
            read(n - 1, queries + p) + 2 * (n - 1) * head
            for p in texts.prompts
            for n in texts.choices
        )
        first = 2 * head * len(texts.prompts)
        return [*parts, Part("choices", images * (follow + first))]
    first, later, steps = texts.decode(at_once)
    # On the average a text is half written.
    seen = queries + _mean(texts.prompts) + _mean([n for row in texts.lengths for n in row]) / 2
    step = 2 * (weights + head) + 4 * deep * seen * width
    return [
        *parts,
        Part("first tokens", first * 2 * head),
        Part("decode", later * step, steps * (weights + head) * BYTES[dtype]),
    ]


def _t5(text: Any, queries: int, dtype: str, images: int, at_once: int, texts: Texts) -> list[Part]:
    width, inner = text.d_model, text.num_heads * text.d_kv
    forward = (3 if text.is_gated_act else 2) * width * text.d_ff
    head = width * text.vocab_size
    encode = keys = 0.0
    for prompt in texts.prompts:
        rows = queries + prompt
        each = 2 * rows * (4 * width * inner + forward) + 4 * rows * rows * inner
        encode += text.num_layers * each
        keys += text.num_decoder_layers * 2 * rows * 2 * width * inner
    weights = text.num_decoder_layers * (6 * width * inner + forward)

    def write(tokens: float, length: float) -> float:
        """Positions of texts of ``length``: each sees the half of it and the encoder's."""
        seen = length / 2 + queries + _mean(texts.prompts)
        return tokens * (2 * (weights + head) + 4 * text.num_decoder_layers * seen * inner)

    parts = [Part("encoder", images * encode), Part("cross keys", images * keys)]
    if texts.choices:
        # A decoder's first position, and what it says, is the same for all choices.
        each = write(1, 1) + sum(write(n - 1, n) for n in texts.choices)
        return [*parts, Part("choices", images * len(texts.prompts) * each)]
    first, later, steps = texts.decode(at_once)
    length = _mean([n for row in texts.lengths for n in row])
    read = (steps + max(1.0, steps * first / max(1, later))) * (weights + head) * BYTES[dtype]
    return [*parts, Part("decode", write(first + later, length), read)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
