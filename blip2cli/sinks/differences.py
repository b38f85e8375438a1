"""How rows made now would differ from those an output holds: found as data, refused on resume."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from blip2cli.errors import OutputError, option
from blip2cli.sinks.format_table import ColumnTypes, format_of, known_suffix
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import FORMAT, Settings, weights_of, without_adapters
from blip2cli.storage.hash_set import OCCURRENCE, ORDINAL
from blip2cli.storage.text_encoding import deep_from_utf8, to_json

_OTHER = "or choose another output"
_HELD = {"int": "numbers", "float": "numbers", "string": "text"}
# Not compared: a new release must not end a job that runs every night, and the questions about each
# image are looked at one by one (``tasks.questions``).
_NOT_COMPARED = ("version", "questions")
# Settings that stand for a column which rows of older outputs lack.
_NEW_COLUMNS = ("choice_mass",)
# Columns that depend on the kind of source, and whose rows have them.
_TOLD_BY_SOURCE = {OCCURRENCE: "rows of manifests", ORDINAL: "shares of lists and archives"}


@dataclass(frozen=True)
class Difference:
    """One thing that differs: the option that says so, what is wrong, and what to do about it."""

    field: str
    problem: str  # what follows on the name of the output
    remedy: str


def check_settings(
    out: str, before: Settings | None, now: Settings, moved_source: bool = False
) -> None:
    """Raise OutputError, naming the first difference, when rows made now would not fit those from
    before.

    Only what is known of ``now`` is compared, so that much can be checked before a model is loaded.
    """
    if before is None:
        raise OutputError(
            "resume",
            f"{option('resume')}: the settings of {out!r} are not known, since the hidden file "
            f"{os.path.basename(OutputPaths.of(out).meta)!r} beside it is gone or damaged",
            "put it back, or choose another output; 'blip2cli convert' reads both, and joins them",
        )
    if before.format != FORMAT:
        version = before.rows.get("version") or "0.1"
        raise OutputError(
            "resume",
            f"{option('resume')}: {out!r} was written by blip2cli {version}, and this version does "
            "not go on with it",
            "choose another output; 'blip2cli convert' reads both, and joins them",
        )
    for found in differences(before, now, moved_source, _types(out)):
        problem = f"{option('resume')}: {out!r} {found.problem}"
        raise OutputError("resume", problem, found.remedy)


def _types(out: str) -> ColumnTypes:
    return format_of(out).types if known_suffix(out) is not None else "wider"


def differences(
    before: Settings, now: Settings, moved_source: bool = False, types: ColumnTypes = "wider"
) -> Iterator[Difference]:
    """What of ``now`` differs from ``before``, beside types of columns that ``types`` allows.

    ``moved_source``: other places are meant.
    """
    rows = deep_from_utf8(json.loads(to_json(now.rows)))  # as they are read back
    skipped = [*_NOT_COMPARED]
    if before.weights is not None and now.weights is not None:
        skipped += ["revision", "adapter"]
        # Of the model that writes and, behind it, of the one that ranks; one of them may have none.
        both = zip(weights_of(before), weights_of(now), ("model", "rank_with"), strict=False)
        for were, are, name in both:
            skipped.append(name)
            if were != are:
                yield _weights(before, now, name, were, are)
    elif before.weights is not None and before.weights.startswith("hub:"):
        skipped.append("revision")  # a name of the commit, perhaps
    # The columns that are carried last: a text that holds one tells more.
    for key, value in sorted(rows.items(), key=lambda setting: setting[0] == "keep"):
        was = before.rows.get(key)
        if key == "questions" and (was is None) != (value is None):
            skipped.remove(key)
        if key in _NEW_COLUMNS and was is None:
            yield Difference(
                key,
                f"was made before rows had the column {key}",
                "choose another output; 'blip2cli convert' reads both, and joins them",
            )
        elif key not in skipped and was != value:
            name = "the command" if key == "task" else option(key)
            yield Difference(
                key,
                f"was made with {name} {shown(was)}, not {shown(value)}",
                "give the same settings, " + _OTHER,
            )
    for name, owners in _TOLD_BY_SOURCE.items():
        was = name in before.columns
        if was != (name in now.columns):
            yield Difference(
                "keep",
                f"was made {'with' if was else 'without'} the column {name}, which "
                f"{'only ' if was else ''}{owners} have",
                "run this source into an output of its own",
            )
    for name, kind in now.columns.items():
        was = before.columns.get(name, kind)
        if was != kind and (types == "fixed" or (kind == "string" and types == "wider")):
            now_has = {"string": "text", "float": "fractions"}.get(kind, kind)
            yield Difference(
                "keep",
                f"holds {_HELD.get(was, was)} in the column {name}, and now it has {now_has}",
                "write all its values in the same way, " + _OTHER,
            )
    if now.sources is not None and before.sources is not None:
        yield from _sources(before, now, moved_source)


def _weights(before: Settings, now: Settings, field: str, were: str, are: str) -> Difference:
    was, name = before.rows.get(field), now.rows.get(field)
    if field == "model" and without_adapters(were) == without_adapters(are):
        adapters, others = (settings.rows.get("adapter") or [] for settings in (before, now))
        if adapters or others:
            return _adapters(adapters, others)
    old, new = (without_adapters(weights).partition("hub:")[2] for weights in (were, are))
    if was != name:
        problem = f"was made with {option(field)} {shown(was)}, not {shown(name)}"
        return Difference(field, problem, "give the same settings, " + _OTHER)
    if old != new and old and new:
        problem = f"was made with commit {old} of {name}, which has moved to {new}"
        if field != "model":
            return Difference(field, problem, "choose another output")
        return Difference("revision", problem, f"give {option('revision')} {old}, {_OTHER}")
    return Difference(
        field,
        f"was made with other weights, tokenizer or configuration than {name} has now",
        "give the model as it was, " + _OTHER,
    )


def _adapters(were: list[str], are: list[str]) -> Difference:
    problem = f"was made with {option('adapter')} {shown(were)}, not {shown(are)}"
    if were == are:
        problem = f"was made with other weights or scales of {shown(are)} than there are now"
    return Difference("adapter", problem, "give the same settings, " + _OTHER)


def _sources(before: Settings, after: Settings, moved_source: bool) -> Iterator[Difference]:
    known: Any = before.sources
    now: Any = after.sources
    if known.get("base") != now["base"]:
        if set(known.get("roots", ())) & set(now["roots"]):
            yield Difference(
                "sources",
                "was made from other sources, and together with these its images would have other "
                "names, since names are relative to the common parent of all sources",
                "give the same sources, or run the new ones into an output of their own",
            )
        elif not moved_source:
            what = "was made from images in another place" if known else "was joined from several"
            yield Difference(
                "sources",
                what,
                f"give the same source, confirm with {option('moved_source')} that these are the "
                f"same images, {_OTHER}",
            )
    if moved_source:
        return
    commits = known.get("commits") or {}
    for place, commit in (now.get("commits") or {}).items():
        if commits.get(place, commit) != commit:
            yield Difference(
                "sources",
                f"was made from commit {commits[place]} of a data set, which has moved to {commit}",
                f"give the source at that commit, as 'hf://datasets/OWNER/NAME@{commits[place]}', "
                f"{_OTHER}",
            )
    content = known.get("content") or {}
    for place, state in now["content"].items():
        if content.get(place, state) != state:
            yield Difference(
                "sources",
                "was made from an archive or a table that has changed since",
                f"confirm with {option('moved_source')} that what has rows is the same, {_OTHER}",
            )
    places = [*now["content"]]
    if OCCURRENCE in after.columns and places and places[: len(content)] != [*content]:
        yield Difference(
            "sources",
            "was made from other manifests, or in another order, and rows about one image are "
            "numbered through all of them",
            f"give the same ones, and new ones behind them, {_OTHER}",
        )


def shown(value: object) -> str:
    """The value of an option, for a sentence."""
    if value is None:
        return "unset"
    if isinstance(value, list):
        return ", ".join(map(repr, value)) or "unset"
    return str(value)
