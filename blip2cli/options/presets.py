"""Presets: the settings of a published evaluation under one name.

A preset gives options other defaults. What stands on the command line or in the environment beside
it wins.
"""

from __future__ import annotations

from typing import Any

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

HELP = (
    "Decode as the BLIP-2 paper does: captions with beam 5, the prompt 'a photo of' and 8 to "
    "30 new tokens; answers with the family's template, beam 5, length penalty -1 and at most 10 "
    "new tokens. Options beside it win."
)
