"""Checks of tables: JSON Lines, Parquet and CSV, with the hidden files and the failures beside."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from blip2cli.convert.base import SchemaWidened, read_errors
from blip2cli.convert.column_types import KNOWN
from blip2cli.convert.formats.delimited import open_reader as open_delimited
from blip2cli.convert.formats.jsonl import JsonlReader
from blip2cli.convert.formats.parquet import ParquetReader
from blip2cli.convert.salvage import DamagedPlaces
from blip2cli.convert.shares import shard_in
from blip2cli.convert.verify.finding import Finding, RowCheck
from blip2cli.errors import UserError, option
from blip2cli.options import ConvertOptions
from blip2cli.sinks.jsonl_lines import CHUNK, JsonlLines
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.row_groups import ARROW_ERRORS, first_line
from blip2cli.sinks.settings import parquet_settings, read_settings
from blip2cli.sources.records import json_object


def check_jsonl(path: str, finding: Finding) -> None:
    """Every line: JSON, with the columns and types of the others. Raises SourceError, OSError."""
    schema: pa.Schema | None = None
    while True:
        reader = JsonlReader(path, schema, salvage=True, ours=True)
        rows = RowCheck(finding)
        rows.shard = shard_in(reader.settings)
        try:
            rows.add(reader.pieces())
        except SchemaWidened as wider:
            schema = wider.schema
        else:
            break
    damaged_places(reader.damage, finding)
    rows.end(reader.settings)
    check_types(reader.schema, finding)
    check_beside(path, finding)


def check_parquet(path: str, finding: Finding) -> None:
    """Every page of every column, and of an unfinished output all parts."""
    paths = OutputPaths.of(path)
    parts = paths.parts()
    rows = RowCheck(finding)
    about = read_settings(paths)
    for file in parts or [path]:
        name = os.path.basename(file) if parts else "it"
        try:
            with read_errors(file):
                settings = parquet_settings(pq.read_schema(file).metadata)
            reader = ParquetReader(file, salvage=True)
            rows.shard = shard_in(about or settings)
            rows.add(reader.pieces())
            damaged_places(reader.damage, finding, f"{name}, " if parts else "")
            check_types(reader.schema, finding)
            read_bytes(file, finding)
        except (UserError, *ARROW_ERRORS) as error:
            finding.damage(f"{name} cannot be read ({first_line(error)})")
            continue
        about = about or settings
        # A part without a token is the output that was finished before.
        if settings is not None and settings.token not in ("", about.token if about else ""):
            finding.damage(f"{name} is of another run")
    rows.end(about)
    if parts:
        for number in range(int(parts[-1].rpartition("-")[2])):
            if paths.part(number) not in parts:
                finding.damage(f"the part {os.path.basename(paths.part(number))} is missing")
        finding.notes.append(f"unfinished, in {len(parts)} parts: {option('resume')} goes on")
    check_beside(path, finding)


def check_delimited(path: str, finding: Finding) -> None:
    """Every line has the cells of the header. Raises SourceError, OSError."""
    reader = open_delimited(path, ConvertOptions(), {})
    rows = RowCheck(finding)
    rows.add(reader.batches())
    rows.end()
    last = b"\n"
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            if b"\0" in chunk:
                finding.damage("it holds NUL bytes", 0)
                return
            last = chunk[-1:]
    if last != b"\n":
        finding.damage("it ends in the middle of a row", max(0, finding.rows - 1))


def damaged_places(damage: DamagedPlaces, finding: Finding, where: str = "") -> None:
    """Places that rows were left out at are damage."""
    if damage.count:
        finding.damage(f"{where}{damage}", damage.sound_until)


def check_types(schema: pa.Schema, finding: Finding) -> None:
    """Columns of ours have their types."""
    for field in schema:
        known = KNOWN.get(field.name, field.type)
        if field.type != known and not (kinds.is_null(field.type) or kinds.is_nested(known)):
            finding.damage(f"the column {field.name} holds {field.type}, not {known}")


def read_bytes(path: str, finding: Finding) -> None:
    """Read the columns that conversions leave out."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for number in range(file.metadata.num_row_groups):
            try:
                for _ in file.iter_batches(batch_size=64, row_groups=[number]):
                    pass
            except ARROW_ERRORS as error:
                finding.damage(f"row group {number} ({first_line(error)})")


def check_beside(path: str, finding: Finding) -> None:
    """The settings and the list of failures."""
    paths = OutputPaths.of(path)
    settings = read_settings(paths)
    if settings is None and os.path.exists(paths.meta):
        finding.damage(f"its settings {os.path.basename(paths.meta)} cannot be read")
    if not os.path.exists(paths.errors):
        return
    lines = JsonlLines(paths.errors)
    count = 0
    for line in lines:
        try:
            row = json_object(line.decode("utf-8"))
            count += bool(row["file_name"] and row["error_type"])
        except (ValueError, KeyError):
            name = os.path.basename(paths.errors)
            finding.damage(f"line {lines.count} of {name} is no failure")
            break
    finding.notes.append(f"{count} failures are listed")
