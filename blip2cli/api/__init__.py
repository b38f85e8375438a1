"""The Python API: ``from blip2cli import Blip2; Blip2.load("tiny").caption(["cat.jpg"])``.

``blip2`` has the class, ``rows`` what it returns, ``batches`` how it reads images. The package is
documented in ``docs/guides/python.md``.
"""

from __future__ import annotations

from blip2cli.api.blip2 import Blip2
from blip2cli.api.rows import AnswerRow, Candidate, CaptionRow, Choice, ChoiceScore, Rows

__all__ = ["AnswerRow", "Blip2", "Candidate", "CaptionRow", "Choice", "ChoiceScore", "Rows"]
