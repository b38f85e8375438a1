"""What reaches the terminal while a model loads and writes, seen from a process of its own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

from blip2cli.system import library_logging

PROGRAM = """
import sys
from blip2cli.system import library_logging
library_logging.show_library_messages(sys.argv[2] == "loud")
import torch
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, ModelOptions
model = Blip2.load(ModelOptions(model=sys.argv[1], device="cpu"))
features = model.features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
for options in (DecodeOptions(max_new_tokens=2), DecodeOptions(max_new_tokens=2, num_beams=2)):
    model.generate(features, [Prompt(0, None, "x")], options)
with library_logging.silence_libraries():
    from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration
    Blip2ForConditionalGeneration.from_pretrained(sys.argv[1])
print([name for name in ("torchvision", "torchaudio") if name in sys.modules])
"""


def run(directory: Path, volume: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(directory), volume],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )


def test_nothing_reaches_the_terminal(checkpoint: Path) -> None:
    result = run(checkpoint, "hushed")
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_chatter_comes_through_when_asked_for(checkpoint: Path) -> None:
    assert "Loading weights" in run(checkpoint, "loud").stderr


def test_settings_are_put_back() -> None:
    from transformers.utils import logging as chatter

    logger = logging.getLogger("transformers")
    before = logger.level, chatter.is_progress_bar_enabled(), list(warnings.filters)
    with library_logging.silence_libraries():
        assert logger.level == logging.CRITICAL
        assert not chatter.is_progress_bar_enabled()
        warnings.warn("not heard", stacklevel=1)
    assert before == (logger.level, chatter.is_progress_bar_enabled(), list(warnings.filters))


def test_download_bars_follow_the_terminal_unless_told() -> None:
    assert not library_logging.downloads_shown()  # pytest's stderr is no terminal
    library_logging.show_downloads(True)
    try:
        assert library_logging.downloads_shown()
    finally:
        library_logging.show_downloads(None)
