"""The card of a data set: what it is made of and by, as the hub shows it.

The lines between ``---`` are YAML that the hub and ``datasets`` read; a JSON string is one of YAML.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from blip2cli.convert.base import Reader
from blip2cli.errors import SourceError, option
from blip2cli.options import ConvertOptions
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import Settings, weights_of
from blip2cli.sources.records import BadRow, json_records
from blip2cli.storage.text_encoding import from_utf8

_TASKS = {
    "caption": ("image-to-text", "Captions"),
    "answer": ("visual-question-answering", "Answers to questions"),
    "embedding": ("image-feature-extraction", "Embeddings"),
}
_SIZES = (
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"),
)  # fmt: skip
_UNSAID = ("version", "task", "model", "keep", "errors", "rows_per_part", "shard")


@dataclass
class CardCounts:
    """What a data set holds."""

    rows: int = 0
    images: int = 0
    left_out: int = 0  # rows of failed images
    _last: str | None = field(default=None, repr=False)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count rows; those of one image follow one another."""
        self.rows += batch.num_rows
        if "file_name" in batch.schema.names:
            for name in batch.column("file_name").to_pylist():
                self.images += name != self._last
                self._last = name


def read_summary(path: str | None) -> Mapping[str, Any]:
    """What the summary of a run holds; empty without one. Raises SourceError."""
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:
            found = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        problem = f"{option('run_summary')} {path} cannot be read: {reason}"
        raise SourceError("run_summary", problem, "check the path") from None
    if not isinstance(found, dict):
        problem = f"{option('run_summary')} {path} is no summary of a run"
        raise SourceError("run_summary", problem, "check the path")
    return found


def card(
    options: ConvertOptions, reader: Reader, counts: CardCounts, summary: Mapping[str, Any]
) -> str:
    """The text of ``README.md``."""
    column = next((name for name in _TASKS if name in reader.schema.names), None)
    return "\n".join(
        [
            *_front_matter(options, column, counts.rows),
            "",
            f"# {_line(os.path.basename(options.destination.rstrip('/')))}",
            "",
            *_about(column, reader.settings),
            *_table("Settings", ("setting", "value"), _settings(reader.settings)),
            *_table("Counts", ("what", "number"), _counts(options, counts)),
            *_table("Metrics", ("metric", "value", "95 % interval"), _metrics(summary)),
            *_table("Columns", ("column", "type"), _columns(options, reader.schema)),
            "",
        ]
    )


def _front_matter(options: ConvertOptions, column: str | None, rows: int) -> Iterator[str]:
    yield "---"
    if options.license:
        yield f"license: {json.dumps(options.license)}"
    if column is not None:
        yield f"task_categories:\n- {_TASKS[column][0]}"
    size = next((name for most, name in _SIZES if rows < most), "n>1B")
    yield f"size_categories:\n- {size}"
    yield "tags:\n- blip2cli\n- synthetic"
    yield "configs:\n- config_name: default\n  data_files:"
    yield "  - split: train\n    path: data/train-*"
    yield "---"


def _about(column: str | None, settings: Settings | None) -> Iterator[str]:
    what = "Rows" if column is None else _TASKS[column][1]
    if settings is None:
        yield f"{what} by BLIP-2, made with blip2cli; how is not known."
        return
    model = settings.rows.get("model") or "a model that is not known"
    version = settings.rows.get("version") or ""
    commits = [one.removeprefix("hub:") for one in weights_of(settings) if one.startswith("hub:")]
    at = f", commit {' and '.join(commits)}" if commits else ""
    by = f"`{_line(model)}`{at}, made with blip2cli {version}"
    yield f"{what} by {by}. No person has checked them."


def _settings(settings: Settings | None) -> Iterator[tuple[str, ...]]:
    for name, value in (settings.rows if settings is not None else {}).items():
        if name not in _UNSAID and value not in (None, [], ""):
            yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _counts(options: ConvertOptions, counts: CardCounts) -> Iterator[tuple[str, ...]]:
    yield "rows", str(counts.rows)
    if counts.images:
        yield "images", str(counts.images)
    if counts.left_out:
        yield "rows left out, of images that failed", str(counts.left_out)
    failed: Counter[str] = Counter()
    for source in options.sources:
        listed = OutputPaths.of(source).errors
        if os.path.isfile(listed):
            for _, row in json_records(listed):
                if not isinstance(row, BadRow):
                    failed[str(row.get("error_type"))] += 1
    for kind, count in failed.most_common():
        yield f"images that failed: {kind}", str(count)


def _metrics(summary: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    metrics = summary.get("metrics")
    figures = metrics.get("figures") if isinstance(metrics, dict) else None
    for name, figure in (figures if isinstance(figures, dict) else {}).items():
        try:
            yield name, f"{figure['value']:.4f}", f"{figure['low']:.4f} to {figure['high']:.4f}"
        except (KeyError, TypeError, ValueError):
            continue


def _columns(options: ConvertOptions, schema: pa.Schema) -> Iterator[tuple[str, ...]]:
    if options.image_root is not None:
        yield "image", "Image"
    for one in schema:
        if one.name != "error":
            yield one.name, str(one.type)


def _table(title: str, head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    every = list(rows)
    if not every:
        return
    yield f"\n## {title}\n"
    for cells in (head, ("---",) * len(head), *every):
        yield f"| {' | '.join(map(_line, cells))} |"


def _line(text: object) -> str:
    """A text as a cell of a table: on one line, without what Markdown takes for its own."""
    plain = " ".join(from_utf8(str(text)).encode("utf-8", "replace").decode().split())
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
