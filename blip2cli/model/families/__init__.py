"""The language model families, one object each in one table.

``base`` says what a family is. Each that generates texts has a folder: ``family`` (the object),
``config`` (its section of ``config.json``), ``net`` (the network, with transformers' names of the
weights), ``session`` (its decoder session, with the images of one batch) and ``kv_slots`` (its keys
and values); a decoder may share those of ``opt``. ``retrieval`` is the family without a language
model. To add one: a folder, and a line
here.
"""

from __future__ import annotations

from blip2cli.model.families.base import Family, LanguageFamily
from blip2cli.model.families.llama.family import LLAMA
from blip2cli.model.families.opt.family import OPT
from blip2cli.model.families.retrieval import RETRIEVAL
from blip2cli.model.families.t5.family import T5

FAMILIES: tuple[Family, ...] = (OPT, T5, LLAMA, RETRIEVAL)
WRITERS: tuple[LanguageFamily, ...] = tuple(
    family for family in FAMILIES if isinstance(family, LanguageFamily)
)

__all__ = [
    "FAMILIES",
    "LLAMA",
    "OPT",
    "RETRIEVAL",
    "T5",
    "WRITERS",
    "Family",
    "LanguageFamily",
    "language_family",
]


def language_family(text_config: dict[str, object]) -> LanguageFamily | None:
    """The family of a language model by ``text_config``; None for one that is not supported."""
    kind = text_config.get("model_type", OPT.model_type)  # transformers' own default
    return next((family for family in WRITERS if family.model_type == kind), None)
