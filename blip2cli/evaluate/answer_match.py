"""Answers that equal one of the references: to the letter, or normalized."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def exact(answer: str, references: Sequence[str]) -> float:
    """1 where the answer is one of the references, but for blanks around it."""
    return float(answer.strip() in {text.strip() for text in references})


def normalized(answer: str, references: Sequence[str]) -> float:
    """1 where it is one of them in lower case, without punctuation and articles."""
    return float(normalize(answer) in {normalize(text) for text in references})


def normalize(text: str) -> str:
    """``text`` in small letters, no punctuation, articles and runs of blanks, as SQuAD has it."""
    text = text.lower()
    if not text.isalnum():
        text = "".join(c for c in text if not unicodedata.category(c).startswith("P"))
    return " ".join(_ARTICLES.sub(" ", text).split())
