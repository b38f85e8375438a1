"""The page of an output: one HTML file, filled with the rows and what is known of their run.

What `run` and `table` hold is written down, with types, in ``data.js``, which reads them. Texts are
given raw: the scripts insert them as text, never as markup.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template

FORMAT = 1

_FOLDER = Path(__file__).parent
# A module comes after those that it imports.
_MODULES = (
    "data", "dom", "words", "thumbnail", "selection", "verdicts", "list", "row", "detail", "charts",
    "run_panel", "controls", "main",
)  # fmt: skip
_STYLES = ("colours", "controls", "list", "detail", "run_panel", "widths")  # later ones win
_IMPORT = re.compile(r"^import\s[^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=class|const|function|async)", re.MULTILINE)


def assemble(title: str, run: Mapping[str, object], table: Mapping[str, object]) -> str:
    """The HTML of a page: equal bytes for equal data.

    Raises ``ValueError`` for numbers that are not finite: JSON has none of them.
    """
    style, script = "\n".join(_asset(f"{name}.css") for name in _STYLES), _script()
    packed = gzip.compress(_json(table).encode(errors="replace"), 6, mtime=0)
    return Template(_asset("page.html")).substitute(
        policy=_policy(style, script),
        title=html.escape(title),
        style=style,
        # Inside a script element only `<` could end it, or begin a comment.
        run=_json(run).replace("<", "\\u003c"),
        columns=base64.b64encode(packed).decode("ascii"),
        script=script,
    )


def _policy(style: str, script: str) -> str:
    """The content security policy: what is inlined, by digest, and sheets of pictures."""
    return (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "img-src blob: data: 'self' file:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _script() -> str:
    """The modules as one: a page from a disk cannot import files."""
    modules = (_asset(f"{name}.js") for name in _MODULES)
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", text)) for text in modules)


def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
