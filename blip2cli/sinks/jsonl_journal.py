"""Reads a JSONL output back: which images have all their rows, and where a crash tore the file.

A killed process leaves complete lines and perhaps a torn one at the end. What is behind the last
complete image is cut off, and its rows are made again. In a gzip file that cut can lie inside a
member; then the members before it are copied as they are and the rest is compressed again, into a
new file that replaces the old one in one step. Lines that are no rows are refused, and untouched.
Of a gzip file the members that are damaged are left out in that way, and a remark says so: what
the others hold is known to be sound by their CRC.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import zlib
from itertools import accumulate

from blip2cli.errors import OutputError, option
from blip2cli.sinks.journal import Journal, RowCount, RowKeys, damaged
from blip2cli.sinks.jsonl_lines import (
    CHUNK,
    DamagedMember,
    JsonlLines,
    Member,
    Piece,
    lines_of,
    sound_pieces,
    without_nulls,
)
from blip2cli.sinks.jsonl_rows import RowParser
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import read_settings, recover_settings
from blip2cli.storage import durable

_START = b'{"file_name": "'
_GOOD = b'"error": ""}\n'  # how a row ends that has an error column and no error


def read_journal(
    paths: OutputPaths, row_count: RowCount, inline_errors: bool = False
) -> Journal | None:
    """The journal of a JSONL output; None without one. Raises OutputError for a damaged one."""
    if not os.path.exists(paths.final):
        return None
    try:
        return _read(paths, row_count, inline_errors, [(0, None)])
    except DamagedMember as found:
        first = found.member
    pieces, damage = sound_pieces(paths.final)
    if not pieces:
        raise OutputError(
            "resume",
            f"{option('resume')}: {paths.final!r} is damaged: none of its gzip members is what was "
            "written, so no row in it is known to be sound",
            "choose another output, and keep this one until that is complete",
        )
    remark = (
        f"{paths.final!r} is damaged behind row {first.lines}, at {', '.join(damage[:3])}; images "
        "that had their rows there are run again, the others keep theirs"
    )
    journal = _read(paths, row_count, inline_errors, pieces)
    return dataclasses.replace(journal, remark=remark)


def _read(
    paths: OutputPaths, row_count: RowCount, inline_errors: bool, pieces: list[Piece]
) -> Journal:
    """The journal of the ``pieces`` of a file. Raises DamagedMember, OutputError."""
    settings = read_settings(paths)
    keys = RowKeys(row_count, settings)
    parser: RowParser | None = None
    before = 0  # bytes of the pieces before this one, decompressed
    for start, stop in pieces:
        lines = JsonlLines(paths.final, start, stop)
        sound = 0
        bad: list[bytes] = []
        for block in lines.blocks():
            parser = parser or RowParser(next(lines_of(block)))
            found = None if bad else parser.keys(block)
            if found is not None and not (inline_errors and block.count(_GOOD) < len(found)):
                ends = functools.partial(_ends, block, before + sound)
                sound = lines.end
                lines.count += len(found)
                keys.add_all(found, before + sound, ends)
                continue
            for line in lines_of(block):
                key = None if bad else parser.key(line)
                if key is None:
                    bad.append(line)
                    continue
                sound += len(line)
                lines.count += 1
                keys.add(key, before + sound, inline_errors and not line.endswith(_GOOD))
            if len(bad) > 1:
                break
        # At the end a line without an end, or with NUL bytes, is what a power cut leaves.
        torn = bad[0] if bad else lines.rest
        if (
            len(bad) > 1
            or (bad and b"\0" not in torn)
            or (torn and stop is not None)
            or not (torn.startswith(_START) or _START.startswith(torn.partition(b"\0")[0]))
        ):
            where = f"line {lines.count + 1}, at byte {before + sound}, is no row of this output"
            raise damaged(paths.final, lines.count, where)
        before += lines.end
    keys.end()
    before -= lines.end
    cut = max(0, keys.complete_until - before)
    journal = Journal(keys.done, keys.rows, keys.failed, settings, keys.lacking)
    whole = lines.intact and cut == lines.end and len(pieces) == 1 and stop is None
    if whole and not os.path.exists(paths.next_meta):
        return journal
    repair = functools.partial(_repair, paths, pieces, cut, lines.member_before(cut))
    return dataclasses.replace(journal, complete=repair)


def _ends(block: bytes, start: int) -> list[int]:
    """Where the lines of a block that begins at ``start`` end."""
    return list(accumulate(map(len, lines_of(block)), initial=start))[1:]


def _repair(paths: OutputPaths, pieces: list[Piece], cut: int, member: Member) -> None:
    """Leave the ``pieces`` of the output, and of the last one what is before ``cut``.

    ``member`` is the gzip member of that piece that holds the position ``cut``.
    """
    recover_settings(paths)
    if not paths.compressed:
        descriptor = durable.open_regular(paths.final)
        try:
            if os.fstat(descriptor).st_size != cut:
                os.ftruncate(descriptor, cut)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return
    with (
        open(paths.final, "rb") as old,
        durable.written(paths.temporary(), paths.final) as new,
    ):
        for start, stop in [*pieces[:-1], (pieces[-1][0], member.compressed)]:
            old.seek(start)
            left = (stop or 0) - start
            while left > 0 and (chunk := old.read(min(left, CHUNK))):
                new.write(chunk)
                left -= len(chunk)
        decoder = zlib.decompressobj(wbits=31)
        rest = b""
        # What was read before is read again, and no byte behind it: zlib looks at the next block
        # even if its bytes are not asked for.
        left = without_nulls(old, os.fstat(old.fileno()).st_size) - member.compressed
        old.seek(member.compressed)
        while len(rest) < cut - member.plain and (chunk := old.read(min(left, CHUNK))):
            left -= len(chunk)
            rest += decoder.decompress(chunk, cut - member.plain - len(rest))
        if rest:
            encoder = zlib.compressobj(wbits=31)
            new.write(encoder.compress(rest) + encoder.flush())
