"""Who races in what.

Each peer is made of a model directory and a precision and does one ``Work`` under a ``Setting``.
Reading and decoding the files is part of it, loading the model is not.

* ``docs``: the documentation's own loop: processor and ``generate``, one image and one question
  at a time.
* ``batched``: what a careful user writes: a ``DataLoader`` that applies the processor, then
  ``generate`` (or, for embeddings, ``get_image_features``) for a batch. The race tries several
  batch sizes and takes the fastest.
* ``cached``: that, with image features computed once and handed to the language model for every
  question.
* ``vllm``: vLLM's offline engine, set up so that it shares what it can; ``vllm-default``: the same
  with its own block size; ``openvino``: OpenVINO's compiled vision encoder. ``make peers``
  installs each with an interpreter of its own, below the folder that ``PEERS`` names.
* ``forward``: closed questions with transformers: one teacher-forced ``forward`` a choice, for a
  batch of images.
* ``ours``: this package's loader and model wrapper.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

# Who is not ours, in the order in which results show them.
OTHERS = ("vllm", "vllm-default", "openvino", "batched", "cached", "forward", "docs")
FOLDER = Path(__file__).resolve().parents[1] / "build" / "peers"
PACKAGES = {"vllm": "vLLM", "vllm-default": "vLLM", "openvino": "OpenVINO"}


def interpreter(peer: str) -> Path:
    """The Python that runs the peer."""
    if peer not in PACKAGES:
        return Path(sys.executable)
    folder = PACKAGES[peer].lower()
    return Path(os.environ.get("PEERS") or FOLDER) / folder / "bin" / "python"


def absent(peer: str) -> str | None:
    """Why the peer is not there, or None."""
    python = interpreter(peer)
    if python.exists():
        return None
    return f"{PACKAGES[peer]} is not installed ({python}): make peers installs it."


def load(kind: str, peer: str, path: str, dtype: str) -> Any:
    """The peer, with its model in memory."""
    # One import each: ours is not to carry transformers' modules, nor they this package's.
    if peer == "ours":
        import ours

        return ours.KINDS[kind](path, dtype)
    if peer.startswith("vllm"):
        import vllm_peer

        return vllm_peer.Engine(path, dtype, block=vllm_peer.BLOCK if peer == "vllm" else None)
    if kind == "vision":
        import vision_peers

        return vision_peers.PEERS[peer](path, dtype)
    import reference

    return reference.KINDS[kind][peer](path, dtype)
