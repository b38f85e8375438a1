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
_PATTERNS = (
    # A secret key of S3 may hold slashes, and so may a password that somebody mistyped; only a
    # port is followed by one otherwise.
    r"(s3a?://(?!arn:)[^/@\s:]*:)\S*(?=@)",
    r"(://[^/@\s:]*:)(?!\d*/)[^@\s]*(?=@)",
    r"(://[^/@\s:]*:)[^/@\s]*(?=@)",
    r"(https?://)[^/@\s:'\"]*(?=@)",
    r"(https?://[^\s'\"?]*\?)[^\s'\"]+",
    r"(://[^\s'\"?]*\?)[^\s'\"]*=[^\s'\"]*",
    rf"((?<![\w-])(?:{_NAMES})=)[^&\s'\"]+",
    r"(\bbearer )[\w.~+/=-]+",
    r"\b()(?:hf_\w{20,}|(?:akia|asia)[a-z0-9]{16}|gh[ops]_\w{20,})",
)
# Texts without any of these, in lower case, match none.
_SIGNS = ("://", "=", "bearer ", "hf_", "akia", "asia", "gho_", "ghp_", "ghs_")
# Values of these variables are replaced wherever they stand.
_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN", "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
)  # fmt: skip
_MIN_SECRET = 8  # characters; shorter values occur in other words


def hide_secrets(text: str) -> str:
    """Return ``text`` with ``***`` in place of passwords, query strings and tokens."""
    lower = text.lower()
    if any(sign in lower for sign in _SIGNS):
        for pattern in _PATTERNS:
            text = re.sub(pattern, rf"\1{HIDDEN}", text, flags=re.IGNORECASE)
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= _MIN_SECRET:
            text = text.replace(value, HIDDEN)
    return text
