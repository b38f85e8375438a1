"""Whether outputs are whole: ``verify``. Everything is read, nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from blip2cli.convert.examples import listed
from blip2cli.convert.verify.finding import Finding
from blip2cli.errors import SourceError, UserError
from blip2cli.storage.opening import is_remote

__all__ = ["Finding", "verify", "verify_all"]

Check = Callable[[str, Finding], None]


def verify_all(texts: Sequence[str]) -> Iterator[Finding]:
    """Verify outputs, and whether those that are shares of one are all there.

    Patterns stand for what matches them. Raises SourceError for one that nothing matches.
    """
    from blip2cli.convert.shares import matches

    if any(map(is_remote, texts)):
        yield from _of_copies(texts)
        return
    paths = matches(texts)
    findings = []
    for path in paths:
        findings.append(verify(path))
        yield findings[-1]
    if len(paths) > 1 or paths != list(texts):
        yield from _of_shares(listed(texts), findings)


def _of_copies(texts: Sequence[str]) -> Iterator[Finding]:
    """The same where some outputs are on object stores. Raises SourceError."""
    from blip2cli.convert.local_copies import local_copies

    with local_copies(texts) as copies:
        for finding in verify_all(copies.paths):
            problems, notes = map(copies.named, finding.problems), map(copies.named, finding.notes)
            path = copies.named(finding.path)
            yield replace(finding, path=path, problems=[*problems], notes=[*notes])


def _of_shares(name: str, findings: Sequence[Finding]) -> Iterator[Finding]:
    """What is wrong with the set of those outputs that are shares."""
    from blip2cli.convert.shares import Shares, read_share

    found = [(share, one.rows) for one in findings if (share := read_share(one.path)) is not None]
    if not found:
        return
    shares = Shares(tuple(share for share, _ in found))
    finding = Finding(name, "shares", rows=sum(rows for _, rows in found))
    different, missing = shares.different(), shares.missing()
    if different is not None:
        finding.incomplete(f"the shares are not of one output: {different}")
    for problem in (*shares.doubled(), *([missing] if missing else []), *shares.unfinished()):
        finding.incomplete(problem)
    if finding.state == "sound":
        finding.notes.append(f"all {len(found)} shares")
    yield finding


def verify(path: str) -> Finding:
    """Read an output of a run or of a conversion as a whole."""
    finding = Finding(path)
    try:
        finding.kind, check = _check_of(path)
        with open(path, "rb") if os.path.isfile(path) else os.scandir(path):
            pass
    except UserError as error:
        finding.unreadable(error.problem)
        return finding
    except FileNotFoundError:
        pass  # an unfinished output or a name of shards: its check knows the files
    except OSError as error:
        finding.unreadable(error.strerror or str(error))
        return finding
    try:
        check(path, finding)
    except UserError as error:
        finding.damage(error.problem)
    except OSError as error:
        finding.unreadable(error.strerror or str(error))
    return finding


def _check_of(path: str) -> tuple[str, Check]:
    """The kind of an output, and its check. Raises UserError."""
    from blip2cli.convert.detect_format import read_format
    from blip2cli.convert.verify import conversions, folders, tables
    from blip2cli.sinks.paths import OutputPaths

    if path.lower().endswith(".tar"):
        return "webdataset", conversions.check_shards
    if path.lower().endswith(".json") and os.path.isfile(path):
        return "json", conversions.check_json
    if path.lower().endswith(".parquet") and OutputPaths.of(path).parts():
        return "parquet", tables.check_parquet
    if os.path.isdir(path) and not os.listdir(path) and not OutputPaths.of(path).parts():
        raise SourceError(None, "the folder is empty")
    kind = read_format(path, None).name
    checks: dict[str, Check] = {
        "jsonl": tables.check_jsonl,
        "parquet": tables.check_parquet,
        "parts": folders.check_parts,
        "csv": tables.check_delimited,
        "tsv": tables.check_delimited,
        "npy": conversions.check_vectors,
        "clip-retrieval": conversions.check_index,
        "imagefolder": conversions.check_imagefolder,
        "sidecar": conversions.check_sidecars,
    }
    return kind, checks[kind]
