"""What texts for people must not hold: passwords, signatures and tokens.

Signed URLs carry their signature in the query, so no query is shown. Texts of libraries hold more
than that: parts of URLs, headers, values of the environment.
"""

from __future__ import annotations

import os
import re

HIDDEN = "***"

_NAMES = (
    r"x-amz-[a-z-]+|x-goog-[a-z-]+|awsaccesskeyid|googleaccessid|key-pair-id|signature|sig|policy|"
    r"(?:\w+[_-])?(?:token|secret|passw(?:or)?d)|api[_-]?key|secret[_-]access[_-]key"
)
_PATTERNS = tuple(
    (re.compile(pattern, re.IGNORECASE), f"\\1{HIDDEN}")
    for pattern in (
        # A secret key of S3 may hold slashes, and so may a password that somebody mistyped; only
        # a port is followed by one otherwise.
        r"(s3a?://(?!arn:)[^/@\s:]*:)\S*(?=@)",
        r"(://[^/@\s:]*:)(?!\d*/)[^@\s]*(?=@)",
        r"(://[^/@\s:]*:)[^/@\s]*(?=@)",
        r"(https?://)[^/@\s:'\"]*(?=@)",
        r"(https?://[^\s'\"?]*\?)[^\s'\"]+",
        r"(://[^\s'\"?]*\?)[^\s'\"]*=[^\s'\"]*",
        rf"((?<![\w-])(?:{_NAMES})=)[^&\s'\"]+",
        r"(\bbearer )[\w.~+/=-]+",
        r"\b()(?:hf_\w{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[a-z]_\w{20,})",
    )
)
# Values of these variables are replaced wherever they stand.
_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN", "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
)  # fmt: skip
_MIN_SECRET = 8  # characters; shorter values occur in other words


def hide_secrets(text: str) -> str:
    """Return ``text`` with ``***`` in place of passwords, query strings and tokens."""
    if "://" in text or "=" in text or "_" in text or "earer " in text or "IA" in text:
        for pattern, shown in _PATTERNS:
            text = pattern.sub(shown, text)
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= _MIN_SECRET:
            text = text.replace(value, HIDDEN)
    return text
