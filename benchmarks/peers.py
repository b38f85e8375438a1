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
* ``forward``: closed questions with transformers: one teacher-forced ``forward`` a choice, for a
  batch of images.
* ``ours``: this package's loader and model wrapper.
"""

from __future__ import annotations

from typing import Any


def load(kind: str, peer: str, path: str, dtype: str) -> Any:
    """The peer, with its model in memory."""
    # One import each: ours is not to carry transformers' modules, nor they this package's.
    if peer == "ours":
        import ours

        return ours.KINDS[kind](path, dtype)
    import reference

    return reference.KINDS[kind][peer](path, dtype)
