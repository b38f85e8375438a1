"""A format of outputs: a writer of rows, a reader of its journal, and a line in the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from blip2cli.sinks import format_table
from blip2cli.sinks.base import RowSchema
from blip2cli.sinks.journal import Journal
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import Settings
from tests.recipes.register import put_module, run_command


class TabSink:
    """Writes the values of each row with tabs between them."""

    def __init__(
        self,
        paths: OutputPaths,
        schema: RowSchema,
        settings: Settings,
        journal: Journal | None,
    ) -> None:
        self._file = Path(paths.final).open("w")  # noqa: SIM115 - closed below
        self._schema = schema

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        for row in rows:
            values = self._schema.complete(row).values()
            self._file.write("\t".join(map(str, values)) + "\n")

    def commit(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def abort(self) -> None:
        self._file.close()


def read_journal(paths: OutputPaths, row_count: object, inline_errors: bool) -> Journal | None:
    """No run goes on with such an output."""
    return None


if __name__ == "__main__":
    put_module("blip2cli.sinks.tabbed")
    format_table.FORMATS += (
        format_table.OutputFormat("tabbed", (".tab",), "tabbed.TabSink", "tabbed.read_journal"),
    )
    run_command()
