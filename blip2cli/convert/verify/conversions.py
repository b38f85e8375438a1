"""Checks of what conversions write beside tables: JSON arrays, tar shards, vectors, folders."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from blip2cli.convert.examples import Examples
from blip2cli.convert.file_set import files_below, recorded_files, strangers
from blip2cli.convert.format_table import FORMATS
from blip2cli.convert.formats.sidecar import SUFFIXES
from blip2cli.convert.verify.finding import Finding, RowCheck
from blip2cli.convert.verify.tables import check_jsonl, check_parquet
from blip2cli.errors import SourceError
from blip2cli.options import ConvertOptions
from blip2cli.sources.image_suffixes import IMAGE_SUFFIXES
from blip2cli.sources.records import json_object
from blip2cli.storage.hash_set import HashSet
from blip2cli.storage.text_encoding import from_utf8

# The keys of the elements of COCO, VQA, LLaVA and Label Studio files; the first one comes once in a
# file.
_ELEMENTS = (
    ("image_id", "caption"), ("question_id", "answer"), ("id", "image", "conversations"),
    ("data", "predictions"),
)  # fmt: skip
_SHARD = re.compile(r"(.*)-(\d{6})\.tar")


def check_json(path: str, finding: Finding) -> None:
    """An array of results or conversations, an element a line; every id comes once."""
    seen, twice = HashSet(), Examples()
    with open(path, "rb") as file:
        if file.readline().strip() != b"[":
            finding.unreadable("it is no array with an element a line, as conversions write it")
            return
        ended, comma = False, True  # behind the element before
        for number, line in enumerate(file, 2):
            text = line.strip()
            if ended and text:
                finding.damage(f"line {number} comes behind the end of the array")
                return
            if text == b"]":
                ended = True
                if comma and finding.rows:
                    finding.damage(f"line {number - 1} ends in a comma, and no element follows")
                continue
            if not comma:
                finding.damage(f"line {number - 1} ends without a comma")
                return
            comma = text.endswith(b",")
            try:
                element = json_object(text.removesuffix(b",").decode("utf-8"))
            except ValueError as error:
                finding.damage(f"line {number} is {error}")
                return
            if tuple(element) not in _ELEMENTS:
                finding.damage(f"line {number} is no result and no conversation")
                return
            key = str(next(iter(element.values())))
            if not seen.add(key):
                twice.add(key)
            finding.rows += 1
    if not ended:
        finding.damage("the end of the array is missing")
    if twice.count:
        finding.damage(f"{twice.count} ids come twice, such as {twice}")


def check_vectors(path: str, finding: Finding) -> None:
    """An array and its keys: of one conversion, as many, and all numbers finite."""
    reader = FORMATS["npy"].load("open_reader")(path, ConvertOptions(), {})
    RowCheck(finding).add(reader.batches())
    if recorded_files(path) is None:
        finding.notes.append("that its keys are those it was written with is not known")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if os.path.getsize(path) != array.offset + array.nbytes:
        finding.damage("bytes follow the last vector")
    step = max(1, (1 << 22) // max(1, array.shape[1]))
    for start in range(0, len(array), step):
        finite = np.isfinite(array[start : start + step]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            finding.damage(f"the vector of row {row + 1} has numbers that are not finite", row)
            return


def check_index(path: str, finding: Finding) -> None:
    """Vectors and metadata for clip-retrieval, shard by shard."""
    names = sorted(os.listdir(os.path.join(path, "img_emb")))
    for problem in strangers(path, files_below(path)):
        finding.damage(problem)
    numbers = sorted(int(n) for name in names if (n := name[8:].removesuffix(".npy")).isdecimal())
    if numbers != list(range(len(numbers))):
        finding.damage(f"the shards are numbered {numbers[:5]} …, so some are missing")
    _check_readable(path, "clip-retrieval", finding)


def check_imagefolder(path: str, finding: Finding) -> None:
    """The metadata, and that every image it names is there."""
    for name, check in (("metadata.jsonl", check_jsonl), ("metadata.parquet", check_parquet)):
        if os.path.exists(os.path.join(path, name)):
            check(os.path.join(path, name), finding)
            break
    if finding.state != "sound":
        return
    missing = Examples()
    reader = FORMATS["imagefolder"].load("open_reader")(path, ConvertOptions(), {})
    for batch in reader.batches():
        for stored in batch.column("file_name").to_pylist():
            image = os.path.join(path, from_utf8(str(stored)))
            if not os.path.isfile(image) or not os.path.getsize(image):
                missing.add(stored)
    if missing.count:
        finding.damage(f"{missing.count} of its images are missing or empty: {missing}")


def check_sidecars(path: str, finding: Finding) -> None:
    """Text files: UTF-8, and not empty."""
    _check_readable(path, "sidecar", finding)
    bad = Examples()
    for folder, _, names in os.walk(path):
        for name in sorted(names):
            if name.endswith(SUFFIXES) and name[0] != ".":
                with open(os.path.join(folder, name), "rb") as file:
                    data = file.read()
                try:
                    if not data.decode("utf-8").strip() or b"\0" in data:
                        bad.add(name)
                except UnicodeDecodeError:
                    bad.add(name)
    if bad.count:
        finding.damage(f"{bad.count} of its files hold no text: {bad}")


def check_shards(path: str, finding: Finding) -> None:
    """The shards of WebDataset: ``name.tar`` stands for all, one of them for itself and the others.

    Raises SourceError where there is none.
    """
    single = _SHARD.fullmatch(path)
    out = f"{single[1]}.tar" if single else path
    stem = os.path.realpath(out.removesuffix(".tar"))
    folder, name = os.path.split(stem)
    there = sorted(n for n in os.listdir(folder) if (m := _SHARD.fullmatch(n)) and m[1] == name)
    if not there:
        raise SourceError(None, f"there is no shard {name}-000000.tar")
    recorded = recorded_files(out)
    if recorded is None:
        finding.notes.append("that they are the shards of one conversion is not known")
        ours = there
    else:  # and what is numbered as the next ones; others may have shards of such names, too
        ours = [n for n in there if n in recorded or int(n[-10:-4]) == len(recorded)]
    files = [os.path.join(folder, n) for n in ours]
    problems = strangers(out, files)
    gaps = {f"{name}-{number:06d}.tar" for number in range(len(ours))} - set(ours)
    for problem in problems or [f"{n!r} is missing" for n in sorted(gaps)[:1]]:
        finding.damage(problem)
    keys = HashSet()
    for file in files:
        with open(file, "rb") as raw:
            for problem in _shard(raw, keys, finding):
                finding.damage(f"{os.path.basename(file)}: {problem}")


def _shard(raw: Any, keys: HashSet, finding: Finding) -> Iterator[str]:
    """What is wrong with one shard; its samples are counted."""
    sample: dict[str, bytes] = {}
    key = ""
    try:
        with tarfile.open(fileobj=raw, mode="r:", errors="surrogateescape") as tar:
            for member in tar:
                folder, slash, base = member.name.rpartition("/")
                stem, _, suffix = base.partition(".")
                if folder + slash + stem != key:
                    yield from _sample(key, sample, keys, finding)
                    key, sample = folder + slash + stem, {}
                content = tar.extractfile(member)
                data = content.read() if content is not None else b""
                if len(data) != member.size:
                    yield f"{member.name} is cut short"
                    return
                sample[f".{suffix.lower()}"] = data
            yield from _sample(key, sample, keys, finding)
            raw.seek(tar.offset)
    except (tarfile.TarError, EOFError, ValueError) as error:
        yield str(error)
        return
    end = raw.read(2 * tarfile.BLOCKSIZE)
    if len(end) < 2 * tarfile.BLOCKSIZE or end.strip(b"\0"):
        yield "it breaks off, or is damaged, behind its last sample"


def _sample(key: str, sample: dict[str, bytes], keys: HashSet, finding: Finding) -> Iterator[str]:
    if not sample:
        return
    if not keys.add(key):
        yield f"{key} comes twice"
    image = next((data for suffix, data in sample.items() if suffix in IMAGE_SUFFIXES), b"")
    try:
        about = json.load(io.BytesIO(sample.get(".json", b"")))
    except (ValueError, RecursionError):
        about = None
    if image and ".txt" in sample and isinstance(about, dict):
        finding.rows += 1
    else:
        yield f"{key} lacks its image, its text or its row"


def _check_readable(path: str, kind: str, finding: Finding) -> None:
    reader = FORMATS[kind].load("open_reader")(path, ConvertOptions(), {})
    rows = RowCheck(finding)
    rows.add(reader.batches())
    rows.end()
