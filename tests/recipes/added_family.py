"""A language model family: one object, and a line in the table. It has OPT's network."""

from __future__ import annotations

from dataclasses import replace

from blip2cli.model import families
from tests.recipes.register import run_command

LLAMA = replace(
    families.OPT, name="llama", model_type="llama", template="[INST] {question} [/INST]"
)

if __name__ == "__main__":
    families.FAMILIES = (LLAMA, *families.FAMILIES)
    families.WRITERS = (LLAMA, *families.WRITERS)
    run_command()
