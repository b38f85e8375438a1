"""A finished folder output, read in the order of its rows and without a set of their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from blip2cli.options import OutputOptions
from blip2cli.sinks.failure_list_journal import read_failures
from blip2cli.sinks.folder import read_layout
from blip2cli.sinks.folder_journal import complete_folder, folder_settings, keys_of
from blip2cli.sinks.folder_layout import Layout
from blip2cli.sinks.folder_store import FolderStore, open_store
from blip2cli.sinks.journal import Journal
from blip2cli.sinks.open_output import ResumedOutput
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import Settings
from blip2cli.sinks.settings_file import marks
from blip2cli.storage.hash_set import HashSet


@dataclass(frozen=True)
class RowsInOrder:
    """The keys of all rows, many together, and the output, whose journal holds none of them.

    ``keys`` raises ``ARROW_ERRORS`` for what is damaged.
    """

    keys: Iterator[Sequence[str]]
    resumed: ResumedOutput

    def with_images(self, count: int) -> ResumedOutput:
        """The output, of which it is known now how many images have rows."""
        return replace(self.resumed, rows=replace(self.resumed.rows, images=count))


def read_in_order(options: OutputOptions) -> RowsInOrder | None:
    """None for what is no folder on this machine, or not finished, and where rows are failures.

    Raises OSError, and OutputError of a damaged list of failures; reading the journal says more.
    """
    paths = OutputPaths.of(options.out or "")
    noted = marks(paths) if paths.is_folder and not paths.is_remote else {}
    if noted.get("finished") is not True or noted.get("replaces") or options.errors != "file":
        return None
    store = open_store(paths)
    settings, schema = folder_settings(paths, store, sorted(store.sizes()))
    layout = read_layout(store, settings, replaces=False)
    complete = partial(complete_folder, paths, settings, schema)
    rows = Journal(rows=layout.rows, settings=settings, complete=complete)
    failures = read_failures(paths, HashSet())
    return RowsInOrder(
        _keys(store, layout, settings), ResumedOutput(rows, failures, paths, written=0.0)
    )


def _keys(store: FolderStore, layout: Layout, settings: Settings) -> Iterator[Sequence[str]]:
    for piece in layout.pieces():
        for keys, _ in keys_of(store, piece, settings):
            yield keys
