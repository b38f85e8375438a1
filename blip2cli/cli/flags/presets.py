"""Presets: the settings of a published evaluation under one name.

A preset gives options other defaults. What stands on the command line or in the environment beside
it wins.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from blip2cli.cli.flags.declare import DECODING, option

# BLIP-2 (arXiv 2301.12597), sections 4.1 and 4.2, and the configurations of LAVIS. The prompt of
# questions is the one of the model's family, so the template stays auto.
PRESETS: dict[str, dict[str, Any]] = {
    "paper-vqa": {
        "template": "auto",
        "num_beams": 5,
        "length_penalty": -1.0,
        "max_new_tokens": 10,
    },
    "paper-caption": {
        "prompt": "a photo of",
        "num_beams": 5,
        "min_new_tokens": 8,
        "max_new_tokens": 30,
    },
}


def apply_preset(context: typer.Context, name: str | None) -> str | None:
    """Let the preset's values stand where an option is neither typed nor in the environment."""
    if name is not None:
        context.default_map = {**(context.default_map or {}), **PRESETS[name]}
    return name


_PRESET: Any = option(
    "--preset",
    panel=DECODING,
    help="Decode as the BLIP-2 paper does: captions with beam 5, the prompt 'a photo of' and 8 to "
    "30 new tokens; answers with the family's template, beam 5, length penalty -1 and at most 10 "
    "new tokens. Options beside it win.",
    callback=apply_preset,
    is_eager=True,
    show_default=False,
)
CaptionPreset = Annotated[Literal["paper-caption"] | None, _PRESET]
AskPreset = Annotated[Literal["paper-vqa"] | None, _PRESET]
