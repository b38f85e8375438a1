"""A language model family: one object, and a line in the table. It has OPT's network."""

from __future__ import annotations

from dataclasses import replace

from blip2cli.model import families
from tests.recipes.register import run_command

NEOX = replace(
    families.OPT, name="neox", model_type="gpt_neox", template="<human>: {question} <bot>:"
)

if __name__ == "__main__":
    families.FAMILIES = (NEOX, *families.FAMILIES)
    families.WRITERS = (NEOX, *families.WRITERS)
    run_command()
