"""Writing a trained model as a checkpoint that plain transformers loads.

Weights lie in one file a part, named by transformers' own index. The embedded models beside
``tiny`` see with its eyes: their index names ``tiny``'s files (``../tiny/vision.safetensors``), so
that those weights are in the package once.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval, Blip2Processor

from training.build import zero_key_bias

INDEX = "model.safetensors.index.json"
# The parts of a model, and where their weights' names begin; the rest is the third part.
PARTS = {
    "vision.safetensors": ("vision_model.",),
    "qformer.safetensors": ("query_tokens", "qformer."),
}
LANGUAGE = "language.safetensors"


def export(
    model: Blip2ForConditionalGeneration | Blip2ForImageTextRetrieval,
    processor: Blip2Processor,
    folder: Path,
    shared: Path | None = None,
) -> None:
    """Write configuration, weights, tokenizer and processor to ``folder``.

    Weights are stored in float16 to halve the package; the configuration says float32, which is
    what they are computed in. The model in memory is rounded the same way, so that what is
    measured afterwards is what was written. A part that is, bit for bit, the one in the folder
    ``shared`` is not written but named there.
    """
    zero_key_bias(model)
    model.half().float()
    if isinstance(model, Blip2ForConditionalGeneration):
        text = model.language_model.config
        model.generation_config.update(
            bos_token_id=text.bos_token_id,
            eos_token_id=text.eos_token_id,
            pad_token_id=text.pad_token_id,
        )
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    whole = temporary / "model.safetensors"
    weights = {name: tensor.half() for name, tensor in load_file(whole).items()}
    whole.unlink()
    _write_parts(weights, temporary, shared)
    processor.save_pretrained(temporary)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(temporary.iterdir()):
        file.chmod(0o644)  # safetensors writes files that their owner alone may read
        file.replace(folder / file.name)
    temporary.rmdir()


def _write_parts(weights: dict[str, Tensor], folder: Path, shared: Path | None) -> None:
    index: dict[str, str] = {}
    parts: dict[str, dict[str, Tensor]] = {file: {} for file in (*PARTS, LANGUAGE)}
    for name, tensor in weights.items():
        file = next((file for file, begins in PARTS.items() if name.startswith(begins)), LANGUAGE)
        parts[file][name] = tensor
    for file, part in parts.items():
        if shared is not None and _same(part, shared / file):
            index |= dict.fromkeys(part, f"../{shared.name}/{file}")
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
            index |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in weights.values())
    told = {"metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))}
    (folder / INDEX).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _same(part: dict[str, Tensor], file: Path) -> bool:
    if not file.is_file():
        return False
    other = load_file(file)
    return part.keys() == other.keys() and all(torch.equal(part[n], other[n]) for n in part)
