"""What an output says of its making: its name, token, settings, and how the time was spent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from blip2cli.errors import SourceError, option
from blip2cli.evaluate.read_rows import Table
from blip2cli.report.plain import number, plain, public_path
from blip2cli.report.rows import PageRows
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import Settings, read_settings
from blip2cli.storage.text_encoding import to_json, to_utf8

_DIGESTS = ("questions", "texts_digest")  # say nothing to a person
_TIMES = ("read", "model", "write")


@dataclass(frozen=True)
class Identity:
    """What tells an output from others, wherever it was moved, or whenever it was made."""

    token: str | None  # None: not known yet
    places: tuple[str, ...]  # digests of where its files are, see ``_place``

    @classmethod
    def of_run(cls, out: str) -> Identity:
        """That of the output of a run that has not started yet."""
        before = None
        with contextlib.suppress(OSError):  # the run says what is wrong
            before = read_settings(OutputPaths.of(out))
        return cls(before.token if before is not None else None, (_place(out),))


@dataclass(frozen=True)
class OutputAbout:
    """One output, as the page shows it."""

    name: str  # its last name, or those of several files
    identity: Identity
    settings: tuple[tuple[str, str], ...]
    sources: Any  # the identity of its sources, as ``sources.identity`` makes it; None: not known

    @classmethod
    def of(cls, table: Table, rows: PageRows) -> OutputAbout:
        """Read it. Raises SourceError."""
        try:
            every = [read_settings(OutputPaths.of(path)) for path in table.paths]
        except OSError as error:
            raise SourceError(
                table.field, f"The settings of {str(table)!r} cannot be read: {error.strerror}"
            ) from None
        first = every[0] or table.settings
        names = [os.path.basename(path.rstrip("/")) for path in table.paths]
        name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        return cls(
            to_utf8(name),
            Identity(
                _token([one.token if one is not None else "" for one in every], rows),
                tuple(map(_place, table.paths)),
            ),
            tuple(_shown(first)) if first is not None else (),
            first.sources if first is not None else None,
        )

    def as_dict(self, rows: PageRows, summary: Summary | None) -> dict[str, Any]:
        """As the page takes it."""
        counts = [*rows.counts(), *(summary.counts if summary is not None else ())]
        return {
            "name": self.name,
            "token": self.identity.token,
            "places": list(self.identity.places),
            "settings": [list(one) for one in self.settings],
            "counts": [list(one) for one in counts],
            "seconds": summary.seconds if summary is not None else None,
            "errors": [list(one) for one in rows.errors.most_common()],
        }


@dataclass(frozen=True)
class Summary:
    """What the summary of a run adds to a page."""

    seconds: dict[str, float] | None
    counts: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, values: dict[str, Any]) -> Summary:
        """From the values of ``pipeline.events.Summary``."""
        after = (number(values.get("seconds")) or 0.0) - (number(values.get("load_seconds")) or 0.0)
        shares = {name: number(values.get(f"{name}_share")) for name in _TIMES}
        seconds = None
        if after > 0 and any(shares.values()):
            seconds = {name: round((share or 0.0) * after, 3) for name, share in shares.items()}
        counts = []
        for name, label in (("already", "done before"), ("skipped", "without a question")):
            count = values.get(name)
            if isinstance(count, int) and count:
                counts.append((label, count))
        return cls(seconds, tuple(counts))

    @classmethod
    def read(cls, path: str) -> Summary:
        """From a file that a run wrote. Raises SourceError."""
        try:
            with open(path, "rb") as file:
                values = json.load(file)
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or "it is no JSON"
            raise SourceError(
                "run_summary",
                f"{option('run_summary')} {path} cannot be read: {reason}",
                "check the path",
            ) from None
        if not isinstance(values, dict) or "read_share" not in values:
            raise SourceError(
                "run_summary",
                f"{option('run_summary')} {path} is no summary of a run",
                f"give what {option('summary')} of caption, ask or embed wrote",
            )
        return cls.of(values)


def _place(path: str) -> str:
    """A digest of a file's name and the number of its folder (inode).

    No digest of the path: whoever is given the page could guess that, and with it names of users.
    """
    folder, name = os.path.split(os.path.realpath(path))
    number = 0
    with contextlib.suppress(OSError):  # the run says what is wrong
        number = os.stat(folder).st_ino
    return hashlib.sha256(os.fsencode(f"{number}/{name}")).hexdigest()[:32]


def _token(tokens: Sequence[str], rows: PageRows) -> str:
    """That of the output; of several one made of theirs; of others' rows a digest of them."""
    if all(tokens):
        joined = "\n".join(tokens)
        return tokens[0] if len(tokens) == 1 else hashlib.sha256(joined.encode()).hexdigest()[:32]
    digest = hashlib.sha256()
    for name in ("file_name", "question", "text"):
        digest.update(to_json(rows.columns[name]))
    return digest.hexdigest()[:32]


def _shown(settings: Settings) -> Iterator[tuple[str, str]]:
    """Settings that were chosen or found, as label and value."""
    for name, value in settings.rows.items():
        if value is None or value == [] or name in _DIGESTS:
            continue
        if isinstance(value, list):
            text = "; ".join(str(plain(one)) for one in value)
        elif value is True:
            text = "yes"
        else:  # paths of models and of other files among them
            text = public_path(str(plain(value)))
        yield name.replace("_", " "), text
