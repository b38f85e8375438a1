"""The changelog has the form of Keep a Changelog, and what it says to type exists."""

from __future__ import annotations

import pkgutil
import re
from datetime import date
from pathlib import Path
from typing import Any

import typer.main
from packaging.version import Version

from blip2cli import __version__
from blip2cli.cli.app import application

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
LONGEST = 220  # characters of an entry that is one short sentence
VERSION = re.compile(r"^## \[([^\]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)
ENTRY = re.compile(r"^- .*(?:\n  .*)*", re.MULTILINE)
UPGRADING = re.compile(r"^### Upgrading from (\S+)\n(.*?)^### ", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, str]:
    """The text below the heading of each version."""
    _, *parts = VERSION.split(TEXT)
    return dict(zip(parts[::3], parts[2::3], strict=True))


def test_versions_follow_one_another_with_their_dates() -> None:
    first, *released = VERSION.findall(TEXT)
    assert first == ("Unreleased", "")
    assert len(released) == TEXT.count("\n## ") - 1  # no heading has another form
    versions = [Version(name) for name, _ in released]
    dates = [date.fromisoformat(day) for _, day in released]
    assert versions == sorted(versions, reverse=True)
    assert dates == sorted(dates, reverse=True)
    assert released[0][0] == __version__


def test_every_version_has_the_kinds_of_changes_in_their_order() -> None:
    for name, text in sections().items():
        kinds = re.findall(r"^### (.*)$", text, re.MULTILINE)
        if kinds and kinds[0].startswith("Upgrading from "):
            kinds = kinds[1:]
        assert kinds == [kind for kind in KINDS if kind in kinds], name
        assert bool(kinds) == bool(ENTRY.search(text)), name


def test_every_heading_of_a_version_is_a_link() -> None:
    for name, day in VERSION.findall(TEXT):
        heading = f"{name} - {day}" if day else name
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        assert f"\n[{name}]: #{anchor}\n" in TEXT


def test_an_entry_is_one_short_sentence() -> None:
    entries = [" ".join(entry.split()) for entry in ENTRY.findall(TEXT)]
    assert [entry for entry in entries if len(entry) > LONGEST or not entry.endswith(".")] == []
    assert len(entries) == len(set(entries))


def test_options_and_commands_it_names_exist() -> None:
    group: Any = typer.main.get_command(application())
    commands = (group, *group.commands.values())
    known = {
        flag for each in commands for p in each.params for flag in (*p.opts, *p.secondary_opts)
    }
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", TEXT)) <= {"--help", *known}
    assert set(re.findall(r"`blip2cli ([a-z]+)", TEXT)) <= group.commands.keys()


def test_what_to_write_when_upgrading_exists() -> None:
    ((version, text),) = UPGRADING.findall(TEXT)
    assert Version(version) < Version(__version__)
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    assert {len(row) for row in rows} == {2}
    now = " ".join(new for _, new in rows)
    pages = [name for name in re.findall(r"`(docs/[\w./-]*)`", now) if not (ROOT / name).exists()]
    assert pages == []
    names = re.findall(r"`(blip2cli(?:\.\w+)+)`", now)
    assert names
    for name in names:
        pkgutil.resolve_name(name)
