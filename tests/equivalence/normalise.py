"""Files as comparable text, and texts without what differs from run to run."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_TIMES = (
    # Keys of JSON objects whose numbers are times, speeds, or facts of this machine and moment.
    "time", "seconds", "load_seconds", "list_seconds", "import_seconds", "first_seconds",
    "images_per_second", "rows_per_second", "texts_per_second", "pairs_per_second", "read_share",
    "model_share", "write_share", "available", "free", "inode",
)  # fmt: skip
_RULES: tuple[tuple[str, str], ...] = (
    (rf'"({"|".join(_TIMES)})": {_NUMBER}', r'"\1": #'),
    (r'"version": "[^"]*"', '"version": "#"'),
    (r'("blip2cli": |^blip2cli )"?\d+\.\d+\.\d+[^"\s]*"?', r"\1#"),
    (r"\d[\d,.]*( (?:images|rows|texts|pairs|lines|samples)/s)", r"#\1"),
    (r"\d[\d,.]* s\b", "# s"),
    (r"\b(read|model|write) \d+%", r"\1 #%"),
    (r"process \d+", "process #"),
    (r"\d[\d.,]* (GB|GiB|MB)( (?:of \S+ )?(?:free|available))", r"# \1\2"),
    (r"\d[\d.]* times as quick", "# times as quick"),
    (r"/[^\s\"']*/(?:old|new)/home/", "<home>/"),
    (r"\S*/blip2cli/tiny/weights/", "<weights>/"),
)
_COMPILED = tuple((re.compile(pattern, re.MULTILINE), text) for pattern, text in _RULES)


def normalise(text: str, folder: Path) -> str:
    """``text`` without seconds, speeds, versions, process ids and the name of ``folder``."""
    text = text.replace(str(folder), "<folder>").replace(folder.name, "<name>")
    for pattern, replacement in _COMPILED:
        text = pattern.sub(replacement, text)
    return text


def describe(path: Path) -> str:
    """The content of a file as text: Parquet by schema and rows, other bytes by digest."""
    data = path.read_bytes()
    if data.startswith(b"PAR1"):
        return _parquet(path)
    if data.startswith(b"\x1f\x8b"):
        return "gzip of\n" + gzip.decompress(data).decode(errors="backslashreplace")
    if b"\0" not in data:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return f"{len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}\n"


def _parquet(path: Path) -> str:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    lines = [f"{file.metadata.num_row_groups} row groups, {file.metadata.num_columns} columns"]
    lines += [str(field) for field in file.schema_arrow]
    lines += [
        f"{key.decode()}: {value.decode(errors='backslashreplace')}"
        for key, value in sorted((file.metadata.metadata or {}).items())
        if key != b"ARROW:schema"
    ]
    for row in file.read().to_pylist():
        lines.append(repr(_short(row)))
    return "\n".join(lines) + "\n"


def _short(value: object) -> object:
    """Long bytes by their digest."""
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return value
