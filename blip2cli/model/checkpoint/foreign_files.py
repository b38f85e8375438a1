"""Files that other tools leave in a model's directory: adapters, pointers, other weights."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from blip2cli.errors import ModelError, option

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")  # PEFT's
MERGE = (
    "merge it into its base model (merge_and_unload of PEFT), save that with save_pretrained, and "
    "give the new directory"
)
# What is left of a large file where Git LFS is not installed.
_POINTER = b"version https://git-lfs.github.com/spec/"
# Files that may hold weights, but not by a name or in a format that is read.
OTHER_WEIGHTS = frozenset(
    (".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".pt", ".pth", ".safetensors")
)


def unmerged_error(where: str, found: str) -> ModelError:
    """The error for weights of an adapter among those of a model; ``found`` is one of them.

    What they are multiplied by is not known: it stands in the adapter's own configuration.
    """
    what = f"{where} holds an adapter of PEFT, such as LoRA ({found})"
    return ModelError(None, f"{what}, beside a model that it is not merged into", MERGE)


def check_adapter(where: str, names: Collection[str]) -> None:
    """Raise ModelError where an adapter is among the files of these names."""
    found = next((name for name in ADAPTER_FILES if name in names), None)
    what = f"{where} holds an adapter of PEFT, such as LoRA ({found})"
    if found is not None and "config.json" in names:
        raise ModelError(
            None,
            f"{what}, beside a model",
            f"to merge it, give {option('model')} the model that it was trained on and "
            f"{option('adapter')} this; if it is merged already, remove its files",
        )
    if found is not None:
        raise ModelError(None, f"{what}, and no whole model", MERGE)


def check_pointer(file: Path) -> None:
    """Raise ModelError for what Git leaves in the place of a large file."""
    if file.is_file() and file.stat().st_size < 1024:
        with file.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                raise ModelError(
                    None,
                    f"{file} is only a pointer of Git LFS to the file itself",
                    "fetch that with git lfs pull",
                )
