"""What an output knows of its making: a hidden file beside it.

A Parquet file says in its metadata, too, what shaped its rows; a random token and the places of the
sources stand only in the hidden file, and the token in the metadata of hidden parts, so that the
bytes of an output do not depend on where and when it was made.

The file is written before the output (of Parquet: the first part) takes its place, under another
name and with the inode number of that file, and renamed after that. So after a crash at any point
it is known which rows the settings belong to. It also says whether the list of failures beside the
output is ours: a file of that name which nobody claimed is somebody else's.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from blip2cli.sinks.failure_list_file import exists
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import (
    METADATA_KEY,
    belongs,
    current,
    is_next,
    owns_failures,
    state_of,
    store,
    stored_at,
)
from blip2cli.storage import durable
from blip2cli.storage.text_encoding import deep_from_utf8, to_json

FORMAT = 2  # of the settings; those of version 0.1 have no number
_BESIDE, _MERGED = "+", "&"


@dataclass(frozen=True)
class Settings:
    """What an output knows of its making; all values are plain JSON."""

    rows: Mapping[str, Any]  # the options and texts that shaped the rows, by name
    # Of the model, see ``model.checkpoint.identity``; behind a plus of one that ranks its texts, or
    # behind an ampersand of adapters.
    weights: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)  # types of the carried columns
    sources: Mapping[str, Any] | None = None  # see ``sources.identity``; None: not known
    questions: str | None = None  # of each image, where they differ; see ``tasks.questions``
    token: str = ""  # random; what belongs to one output shares it
    format: int = FORMAT

    @property
    def shard(self) -> str | None:
        """The share ``I/N`` of the images that the output has rows of; None: all."""
        shard = self.rows.get("shard")
        return shard if isinstance(shard, str) else None

    def fits(self, other: Settings) -> bool:
        """Whether rows made so stand in one file with those of ``other``, as far as options go."""
        return {**self.rows, "questions": None} == {**other.rows, "questions": None}

    def adopt(self, now: Settings) -> Settings:
        """These settings after rows were added that were made with ``now``, which fits them."""
        questions = {k: v for k, v in now.rows.items() if k == "questions"}
        return replace(
            now,
            rows={**self.rows, **questions},
            weights=self.weights or now.weights,
            sources=_joined(self.sources, now.sources),
            token=self.token or new_token(),
        )

    def as_copy(self) -> Settings:
        """Those of a copy of the rows, which is an output of its own."""
        return replace(self, token=new_token())


def _joined(
    before: Mapping[str, Any] | None, now: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The sources of all runs: what an earlier one read is still known of, unless they moved."""
    if not (before and now) or before.get("base") != now.get("base"):
        return now or before
    roots = [*before.get("roots", ()), *now.get("roots", ())]
    content = {**before.get("content", {}), **now.get("content", {})}
    return {**now, "roots": list(dict.fromkeys(roots)), "content": content}


def common_settings(settings: Sequence[Settings | None]) -> Settings | None:
    """Those of rows from several outputs in one; None where rows were made in different ways."""
    first, *others = settings
    if first is None:
        return None
    for other in others:
        if other is None or not first.fits(other) or first.weights != other.weights:
            return None
        if other.sources != first.sources:
            first = replace(first, sources={})
        columns = {k: v for k, v in first.columns.items() if other.columns.get(k) == v}
        first = replace(first, columns=columns)
        if other.questions and other.questions != first.questions:
            first = replace(first, questions=(first.questions or "") + other.questions)
    return first


def both_weights(model: str, ranker: str | None) -> str | None:
    """The ``weights`` of two models; None where those of one are not known."""
    return None if ranker is None else f"{model}{_BESIDE}{ranker}"


def weights_of(settings: Settings) -> list[str]:
    """The weights of each model, where they are known."""
    return [] if settings.weights is None else settings.weights.split(_BESIDE)


def adapted_weights(model: str, adapters: str) -> str:
    """The ``weights`` of a model into which adapters are merged, of which ``adapters`` tells."""
    return f"{model}{_MERGED}{adapters}"


def without_adapters(weights: str) -> str:
    """The weights of the model itself."""
    return weights.partition(_MERGED)[0]


def new_token() -> str:
    """A token for a new output."""
    return os.urandom(16).hex()


def parquet_metadata(settings: Settings | None, token: str = "") -> dict[bytes, bytes]:
    """The metadata that marks a Parquet file as an output, with its settings if they are known.

    ``token`` is for parts, which no reader sees.
    """
    if settings is None:
        return {METADATA_KEY: to_json({})}
    about = {
        "settings": settings.rows,
        "format": settings.format,
        "weights": settings.weights,
        "columns": settings.columns,
    }
    return {METADATA_KEY: to_json(about | ({"token": token} if token else {}))}


def parquet_settings(metadata: Mapping[bytes, bytes] | None) -> Settings | None:
    """The settings in the metadata of a Parquet file; None when there are none."""
    try:
        return _settings(json.loads((metadata or {}).get(METADATA_KEY, b"")))
    except (ValueError, RecursionError):
        return None


def read_settings(paths: OutputPaths) -> Settings | None:
    """The settings beside an output; None when they are missing or damaged. Raises OSError."""
    return _settings(current(paths))


@contextlib.contextmanager
def write_settings(
    paths: OutputPaths, settings: Settings | None, inode: int, later: bool = False
) -> Iterator[None]:
    """Store the settings of the file with this ``inode``, which is put in its place in the body.

    With None, those of an output that is replaced are removed. ``later``: the file is a part, and
    the older output that is there now is to be replaced at the end. Raises OSError.
    """
    if settings is None:
        yield
        durable.remove(paths.meta)
        return
    listed = owns_failures(paths) and os.path.lexists(paths.errors)
    replaces = state_of(paths.final) if later and paths.replace else None
    more = {} if replaces is None else {"replaces": replaces}
    _store(paths, paths.next_meta, settings, inode=inode, failures=listed, **more)
    try:
        yield
    except BaseException:
        try:
            in_place = belongs(paths, {"inode": inode, "token": settings.token})
        except OSError:
            in_place = True  # perhaps
        if not in_place:
            durable.remove_quietly(paths.next_meta)
        raise
    durable.rename_into_place(paths.next_meta, paths.meta)


def update_settings(paths: OutputPaths, settings: Settings) -> None:
    """Store other settings of the output, after ``recover_settings``. Raises OSError."""
    stored = stored_at(paths.meta)
    carried = ("inode", "failures", "replaces", "finished", "complete")
    more = {name: stored[name] for name in carried if name in stored}
    _store(paths, paths.meta, settings, **more)


def recover_settings(paths: OutputPaths) -> None:
    """Complete what a crash between an output and its settings left undone. Raises OSError."""
    if paths.is_folder:
        return
    if is_next(paths):
        durable.rename_into_place(paths.next_meta, paths.meta)
    else:
        durable.remove(paths.next_meta)


def begin_settings(paths: OutputPaths, settings: Settings, **marks: object) -> None:
    """Store the settings of a new output whose files name it by its token, in one step.

    Raises OSError.
    """
    listed = owns_failures(paths) and exists(paths)
    noted = {name: value for name, value in marks.items() if value is not None}
    _store(paths, paths.meta, settings, failures=listed, **noted)


def _store(paths: OutputPaths, path: str, settings: Settings, **more: object) -> None:
    about = {
        "format": settings.format,
        "settings": settings.rows,
        "weights": settings.weights,
        "columns": settings.columns,
        "sources": settings.sources,
        "questions": settings.questions,
        "token": settings.token,
    }
    store(paths, path, json.loads(to_json(about | more)))


def _settings(stored: Any) -> Settings | None:
    try:
        about = deep_from_utf8(stored)
        found = Settings(
            dict(about["settings"]),
            about.get("weights"),
            about.get("columns") or {},
            about.get("sources"),
            about.get("questions"),
            about.get("token") or "",
            about.get("format") or 1,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if _has_its_form(found) else None


def _has_its_form(found: Settings) -> bool:
    """Whether the values are of the types that are written, however deep."""
    return (
        all(isinstance(text, str | None) for text in (found.weights, found.questions))
        and isinstance(found.token, str)
        and type(found.format) is int
        and _is_object(found.columns, str)
        and (found.sources is None or _are_sources(found.sources))
    )


def _are_sources(sources: Any) -> bool:
    if not isinstance(sources, dict):
        return False
    roots, content = sources.get("roots", []), sources.get("content", {})
    commits = sources.get("commits", {})
    return (
        isinstance(sources.get("base", ""), str)
        and isinstance(roots, list)
        and all(isinstance(root, str) for root in roots)
        and _is_object(content, dict)
        and _is_object(commits, str)
        and all(type(state.get("size", 0)) is int for state in content.values())
    )


def _is_object(value: Any, kind: type) -> bool:
    return isinstance(value, dict) and all(isinstance(each, kind) for each in value.values())
