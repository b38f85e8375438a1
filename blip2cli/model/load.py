"""From a checkpoint directory to a model that is ready to run.

transformers' own classes do the reading: weights go straight from the file into place, in the
wanted precision, without a second copy in memory; pickles are read with ``weights_only=True``;
no code from a checkpoint is ever run. What transformers would only warn about (weights that are
missing and so left random) is an error here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint import Checkpoint
from blip2cli.model.dtype import Placement
from blip2cli.model.int8 import is_int8, read_state
from blip2cli.model.rows import make_rows_stable

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel
    from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration

# The language model's attention is plain matrix products: one-query sdpa gives a row other bits
# in other company, and is slower on a CPU. With several queries it is sdpa that keeps its bits.
ATTENTION = {"vision_config": "sdpa", "qformer_config": "sdpa", "text_config": "eager"}


def load_model(checkpoint: Checkpoint, placement: Placement) -> PreTrainedModel:
    """Load the weights onto the device, in evaluation mode.

    Returns a ``Blip2ForImageTextRetrieval`` for the family ``itm``, a
    ``Blip2ForConditionalGeneration`` for all others. Raises ModelError naming the file or the
    weights when they are damaged, missing or of another shape than the configuration says.
    """
    from transformers.models.blip_2 import modeling_blip_2 as blip_2

    if checkpoint.safetensors:
        for file in checkpoint.weights:
            check_safetensors(file)
    kind: Any = blip_2.Blip2ForConditionalGeneration
    if checkpoint.family == "itm":
        kind = blip_2.Blip2ForImageTextRetrieval
    loaded: Any
    try:
        loaded = kind.from_pretrained(
            **_origin(checkpoint, placement),
            dtype=placement.dtype,
            attn_implementation=ATTENTION,
            weights_only=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError) as error:
        raise ModelError(_explain(checkpoint, error)) from error
    except Exception as error:
        # Unpickling errors and the strict configuration's errors have no common root.
        if type(error).__module__.partition(".")[0] not in _KNOWN_RAISERS:
            raise
        raise ModelError(_explain(checkpoint, error)) from error
    model: PreTrainedModel
    model, info = loaded
    _refuse_incomplete(checkpoint, info)
    model.to(placement.device)  # type: ignore[arg-type]
    model.eval()
    model.requires_grad_(False)
    if placement.device.type == "cpu":
        make_rows_stable(model)
    return model


def _origin(checkpoint: Checkpoint, placement: Placement) -> dict[str, Any]:
    """Where transformers is to find configuration and weights."""
    path = str(checkpoint.path)
    if not is_int8(checkpoint.config):
        return {
            "pretrained_model_name_or_path": path,
            "use_safetensors": checkpoint.safetensors,
        }
    from transformers.models.blip_2.configuration_blip_2 import Blip2Config

    config = {k: v for k, v in checkpoint.config.items() if k != "quantization_config"}
    return {
        "pretrained_model_name_or_path": None,
        "config": Blip2Config(**config),
        "state_dict": read_state(checkpoint.weights, placement.dtype),
    }


_KNOWN_RAISERS = frozenset({"_pickle", "pickle", "safetensors_rust", "huggingface_hub", "zipfile"})


def check_safetensors(file: Path) -> None:
    """Check a safetensors file's length against its header.

    The header is a little-endian 64-bit length, then JSON that gives each tensor's byte range
    (https://github.com/huggingface/safetensors#format). Raises ModelError naming the file: a
    download cut short is the usual case, and only the header tells.
    """
    damaged = f"{file} is damaged or cut short; delete it and fetch it again."
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise ModelError(damaged)
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
            spans = [v["data_offsets"] for k, v in header.items() if k != "__metadata__"]
            end = max((span[1] for span in spans), default=0)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise ModelError(damaged) from error
    if size != 8 + length + end:
        raise ModelError(damaged)


def _refuse_incomplete(checkpoint: Checkpoint, info: Any) -> None:
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{checkpoint.path} lacks {len(missing)} of the model's weights "
            f"({_some(missing)}); they would be random, so fetch or save the model again."
        )
    mismatched = sorted(key[0] for key in info["mismatched_keys"])
    if mismatched:
        raise ModelError(
            f"{checkpoint.path} has {len(mismatched)} weights of another shape than its "
            f"config.json says ({_some(mismatched)}); take config.json and weights from one model."
        )


def _explain(checkpoint: Checkpoint, error: Exception) -> str:
    lines = str(error).strip().splitlines()
    said = lines[0] if lines else type(error).__name__
    if "size mismatch" in str(error) or "ignore_mismatched_sizes" in str(error):
        return (
            f"the weights in {checkpoint.path} have other shapes than its config.json says; "
            "take both from one model."
        )
    if not checkpoint.safetensors:
        names = ", ".join(file.name for file in checkpoint.weights)
        return (
            f"the pickled weights in {checkpoint.path} ({names}) are damaged or hold more than "
            f"tensors, and are not loaded ({said}); use a safetensors copy of the model."
        )
    return f"the model in {checkpoint.path} cannot be loaded ({said})."


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown}, …"


def end_tokens(model: Blip2ForConditionalGeneration) -> tuple[int, ...]:
    """The token ids that end a text, as transformers' ``generate`` takes them."""
    end = model.language_model.generation_config.eos_token_id
    if end is None:
        return ()
    if isinstance(end, torch.Tensor):
        end = end.tolist()
    return tuple(end) if isinstance(end, list) else (int(end),)
