"""A data set of the Hugging Face hub: ``hf://datasets/OWNER/NAME``, with ``@REVISION`` behind it if
that is not ``main``.

What is read is, the first there is: the tables and archives in its repository, the images in it,
the Parquet files that the hub made of its ``main``. The commit is looked up once: every file comes
from that, and an output remembers it. The option ``split`` takes the files that have its name in
theirs, as ``datasets`` has it: ``data/train-00000-of-00002.parquet``, ``train/cat.png``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from blip2cli.errors import SourceError, option
from blip2cli.sources.base import ImageRef, name_below
from blip2cli.sources.image_suffixes import IMAGE_SUFFIXES
from blip2cli.sources.patterns import PathPattern
from blip2cli.sources.readers.folder import container_suffix, one_kind
from blip2cli.sources.readers.globs import GlobSource
from blip2cli.sources.readers.remote import RemoteTree
from blip2cli.sources.remote_ref import RemoteRef
from blip2cli.storage.remote_errors import RemoteMissingError, remote_error

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions

CONVERTED = "refs/convert/parquet"  # the branch of the Parquet files that the hub makes
_MAIN = "main"  # the branch that those are of
_SHOWN = 5  # files in a message


@dataclass(frozen=True)
class HubDataset(GlobSource):
    """The images of a data set, in files of one commit, or those in its tables or archives."""

    files: tuple[str, ...] = field(default=(), kw_only=True)  # their paths in the repository

    @property
    def commit(self) -> str:
        return self.root.rpartition("@")[2]

    def _matches(self, base: str) -> Iterator[ImageRef]:
        for name in self.files:
            url = f"{self.root}/{name}"
            yield RemoteRef(name_below(url, base), url)


def open_source(text: str, options: SourceOptions) -> HubDataset:
    """The data set ``text``, after a request to the hub.

    Raises SourceError when there is none, it holds nothing that is read, or has not that split.
    """
    repo, _, revision = text.removeprefix("hf://datasets/").rstrip("/").partition("@")
    revision = unquote(revision) or _MAIN
    info = _info(text, repo, revision)
    names = [sibling.rfilename for sibling in info.siblings or []]
    files, split = _chosen(text, names), options.split
    if not files:
        info, files = _converted(text, repo, revision)
        split = None if split is None else f"(partial-)?{re.escape(split)}"
    elif split is not None:
        split = re.escape(split)
    if split is not None:
        every, files = files, [name for name in files if _in_split(name, split)]
        if not files:
            shown = ", ".join(every[:_SHOWN]) + (", …" if len(every) > _SHOWN else "")
            problem = f"{option('split')} {options.split}: no file of {text!r} has it in its name"
            raise SourceError("split", problem, f"there are {shown}")
    suffix = container_suffix(files[0])
    pattern = PathPattern(("**", f"*{suffix}" if suffix else "*"))
    root = f"hf://datasets/{repo}@{info.sha}"
    return HubDataset(text, root, pattern, options, RemoteTree(), files=tuple(files))


def _info(text: str, repo: str, revision: str) -> Any:
    """What the hub says of a data set: the commit of a revision, and its files."""
    try:
        from huggingface_hub import HfApi

        return HfApi().dataset_info(repo, revision=revision)
    except Exception as error:  # noqa: BLE001 - as of any protocol
        from huggingface_hub import errors

        absent = isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError)
        if absent and not isinstance(error, errors.GatedRepoError):
            raise remote_error(text, FileNotFoundError(text)) from None
        raise remote_error(text, error) from None


def _chosen(text: str, names: Sequence[str]) -> list[str]:
    """The tables and archives among files, or the images, in order. Raises SourceError where tables
    and archives are of several kinds."""
    seen = [name for name in names if not any(p.startswith(".") for p in name.split("/"))]
    ordered = sorted(seen, key=lambda name: name.encode("utf-8", "surrogateescape").split(b"/"))
    kinds: dict[str, list[str]] = {}
    for name in ordered:
        if name.rpartition("/")[2] != "metadata.parquet" and (suffix := container_suffix(name)):
            kinds.setdefault(suffix, []).append(name)
    if kinds:
        return kinds[one_kind(text, kinds)]
    return [name for name in ordered if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]


def _converted(text: str, repo: str, revision: str) -> tuple[Any, list[str]]:
    """The Parquet files that the hub made of a data set, and what it says of that branch."""
    nothing = f"{text!r} holds no Parquet file, archive or image"
    if revision != _MAIN:
        made = "for the Parquet files that the hub has made, leave the revision out"
        raise SourceError("sources", nothing, made)
    try:
        info = _info(text, repo, CONVERTED)
    except RemoteMissingError:
        problem = f"{nothing}, and the hub has made no Parquet files of it"
        raise SourceError("sources", problem, "name a folder or a file in it") from None
    files = _chosen(text, [sibling.rfilename for sibling in info.siblings or []])
    configurations = sorted({name.partition("/")[0] for name in files})
    if len(configurations) > 1:
        branch = f"hf://datasets/{repo}@{CONVERTED.replace('/', '%2F')}"
        raise SourceError(
            "sources",
            f"{nothing}, and what the hub made of it has {len(configurations)} configurations",
            f"name one, such as '{branch}/{configurations[0]}/**/*.parquet'; there are "
            f"{', '.join(configurations)}",
        )
    if not files:
        raise SourceError("sources", f"{nothing}, and what the hub made of it is empty")
    return info, files


def _in_split(name: str, split: str) -> bool:
    """Whether the split, a regular expression, stands in a file's name as a word."""
    return re.search(rf"(^|[-._ 0-9/]){split}([-._ 0-9/]|$)", name) is not None
