"""Writing a trained model as a checkpoint that plain transformers loads."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from blip2cli.tiny.build import zero_key_bias


def export(model: Blip2ForConditionalGeneration, processor: Blip2Processor, folder: Path) -> None:
    """Write configuration, weights, tokenizer and processor to ``folder``.

    Weights are stored in float16 to halve the package; the configuration says float32, which is
    what they are computed in. The model in memory is rounded the same way, so that what is
    measured afterwards is what was written.
    """
    zero_key_bias(model)
    model.half().float()
    text = model.language_model.config
    model.generation_config.update(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
    )
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    weights = temporary / "model.safetensors"
    halved = {name: tensor.half() for name, tensor in load_file(weights).items()}
    save_file(halved, weights, metadata={"format": "pt"})
    processor.save_pretrained(temporary)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(temporary.iterdir()):
        file.replace(folder / file.name)
    temporary.rmdir()
