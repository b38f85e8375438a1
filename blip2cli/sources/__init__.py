"""Where images come from: listing the images of all sources, each once.

Names (``file_name``) are relative to the source's root: the folder itself, the folder of a single
file or a manifest, the part of a glob before its first wildcard, the current folder for paths on
stdin. An archive, and a table that holds images, counts as a folder of its own. With
several sources they are relative to the common parent of all roots, so no two images share a name.
Local paths and URLs, and URLs of different buckets, have no common parent and are refused together.
An image given twice is run once, unless columns are carried into the rows: then it is run for each
row of a manifest that names it.

Of a share (see ``shard``) the images are those of the whole source that fall into it: the option
``limit`` counts the others, too, so that all shares together are what one process would label.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Any, BinaryIO

from blip2cli import __version__
from blip2cli.errors import SourceError, option
from blip2cli.sources.base import (
    FailedRef,
    ImageRef,
    RefBlock,
    Source,
    name_below,
    opening_errors,
)
from blip2cli.sources.carried_columns import CarriedColumn, columns_of, with_columns
from blip2cli.sources.identity import identify
from blip2cli.sources.image_suffixes import IMAGE_SUFFIXES
from blip2cli.sources.patterns import Selection
from blip2cli.sources.readers import find_reader
from blip2cli.sources.shard import Shard
from blip2cli.sources.url_names import public_name, same_place
from blip2cli.storage.hash_set import ORDINAL
from blip2cli.storage.opening import is_remote

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions

__all__ = ["IMAGE_SUFFIXES", "CarriedColumn", "ImageRef", "Listing", "RefBlock", "open_sources"]


_REFS = 4096  # references that are looked up together
# Options that say which images of a source are labelled.
_CHOSEN = ("limit", "include", "exclude", "image_column", "split")


@dataclass(frozen=True)
class Listing:
    """The sources of a run, each opened once."""

    options: SourceOptions
    sources: tuple[Source, ...]
    columns: tuple[CarriedColumn, ...]  # those carried into the rows, in the order of the option

    @classmethod
    def open(cls, options: SourceOptions, stdin: BinaryIO | None = None) -> Listing:
        """Check all sources. Raises SourceError for one that is missing or cannot be read,
        OptionError for a column that does not exist."""
        if not options.sources:
            raise SourceError(
                "sources", "No source was given", "name a folder, a file, a glob, or - for stdin"
            )
        sources = [_open(text, options, stdin) for text in dict.fromkeys(options.sources)]
        if options.image_root is not None or options.split is not None:
            from blip2cli.sources.fitting_options import check_fitting

            check_fitting(options, sources)
        columns = columns_of(sources, options.keep)
        if options.shard is not None and not _by_name(sources):
            count = len(options.keep)
            columns = (*columns[:count], CarriedColumn(ORDINAL, "int"), *columns[count:])
        return cls(options, tuple(sources), columns)

    def widened(self, types: Mapping[str, str]) -> Listing:
        """With columns that hold values of these ``types``, too."""
        return replace(self, columns=tuple(c.widened(types.get(c.name)) for c in self.columns))

    def identity(self, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What an output remembers of the sources, see ``identity``; that of a share also the
        options that choose images (``chosen``). Raises SourceError."""
        with opening_errors(", ".join(source.text for source in self.sources)):
            found = identify(self.sources, _common_parent(self.sources), before)
        if self.options.shard is not None:  # the others are cut from the same images
            chosen = {name: getattr(self.options, name) for name in _CHOSEN}
            found["chosen"] = {k: [*v] if isinstance(v, tuple) else v for k, v in chosen.items()}
        return found

    def digest(self) -> str | None:
        """A digest of everything that says which images are listed, in which order; None where
        that cannot be known without listing them, as of folders."""
        files = [source.list_files() for source in self.sources]
        if None in files:
            return None
        chosen = replace(self.options, sources=(), moved_source=False, check_content=False)
        home = os.path.expanduser("~")  # paths in lists may begin so
        digest = hashlib.sha256(repr((__version__, chosen, home, files)).encode())
        try:
            for path in chain.from_iterable(names or () for names in files):
                with open(path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:  # listing says what is wrong
            return None
        return digest.hexdigest()

    def refs(self, others: Counter[str] | None = None) -> Iterator[ImageRef]:
        """Yield the images lazily in source order.

        Patterns without a match, folders without images and a selection that leaves nothing raise
        SourceError at once, before the first image. Only what arrives on stdin is judged later,
        when it has been read: its SourceError comes from the iterator. ``others`` counts files in
        folders, by suffix, that may be pictures and are not read.
        """
        for source in self.sources:
            # A mistyped pattern must not hide behind the images of another source.
            if source.must_match and next(source.refs(source.root), None) is None:
                raise source.no_images()
        self._count_others(others)
        refs = _select(self.sources, self.options)
        if self.columns:
            refs = with_columns(refs, self.columns)
        if any(source.streamed for source in self.sources):
            return refs
        if self.options.shard is not None:  # of which there may be none
            first = next(refs, None)
            return iter(()) if first is None else chain([first], refs)
        return chain([next(refs)], refs)  # finds an empty folder before a model is loaded

    def blocks(self, others: Counter[str] | None = None) -> Iterator[RefBlock]:
        """The images of ``refs`` many together, for who needs few of them. Raises as it does."""
        options = self.options
        chosen = options.include or options.exclude or options.limit or options.shard is not None
        if len(self.sources) == 1 and not self.columns and not chosen:
            source = self.sources[0]
            self._count_others(others)
            blocks = source.blocks(_common_parent(self.sources))
            if blocks is not None:
                first = next(blocks, None)
                if first is None:
                    raise source.no_images()
                return chain([first], blocks)
        return _together(self.refs(others))

    def _count_others(self, others: Counter[str] | None) -> None:
        for source in self.sources:
            tree = getattr(source, "tree", None)
            if tree is not None:
                tree.others = others


def open_sources(
    options: SourceOptions, stdin: BinaryIO | None = None, others: Counter[str] | None = None
) -> Iterator[ImageRef]:
    """The images of all sources, see ``Listing.refs``; raises what ``Listing`` raises."""
    return Listing.open(options, stdin).refs(others)


def _together(refs: Iterator[ImageRef]) -> Iterator[RefBlock]:
    while some := [*islice(refs, _REFS)]:
        yield RefBlock.of(some)


def _open(text: str, options: SourceOptions, stdin: BinaryIO | None) -> Source:
    reader = find_reader(text)
    if reader is not None:
        return reader.open(text, options, stdin)
    if not text:
        raise SourceError("sources", "An empty source was given", "name a folder, a file or a glob")
    raise SourceError("sources", f"There is no file or folder {text!r}", "check the path")


def _by_name(sources: Sequence[Source]) -> bool:
    """Whether images come in the order of their names (``shard.name_order``)."""
    return len(sources) == 1 and sources[0].by_name


def _select(sources: Sequence[Source], options: SourceOptions) -> Iterator[ImageRef]:
    """Yield what the options ``include``, ``exclude`` and ``limit`` leave, and of it the share.

    Raises SourceError if they leave nothing. Images of a share carry their place in the source
    behind the columns that are kept, unless it is told by their names.
    """
    selection = Selection(options.include, options.exclude)
    takes_all = not options.include and not options.exclude
    shard = Shard.of(options.shard) if options.shard is not None else None
    numbered = shard is not None and not _by_name(sources)
    seen = given = 0
    for ref in _all(sources, repeated=bool(options.keep)):
        seen += 1
        if takes_all or selection.takes(ref.file_name, failed=isinstance(ref, FailedRef)):
            if shard is None:
                yield ref
            elif shard.takes(ref.file_name):
                carried = ref.carried or (None,) * len(options.keep)
                yield replace(ref, carried=(*carried, seen)) if numbered else ref
            given += 1
            if given == options.limit:
                return
    if given:
        return
    if seen:
        images = "the only image" if seen == 1 else f"any of the {seen} images"
        field = "include" if options.include else "exclude"
        raise SourceError(field, f"{selection} does not leave {images}", "loosen the pattern")
    errors = [source.no_images() for source in sources]
    if len(errors) == 1:
        raise errors[0]
    raise SourceError("sources", " ".join(error.sentence(option) for error in errors))


def _all(sources: Sequence[Source], repeated: bool) -> Iterator[ImageRef]:
    """The images of all sources, named below the common parent: each once, or where ``repeated``
    for each row of a manifest that names it."""
    base = _common_parent(sources)
    if len(sources) == 1 and sources[0].unique:
        return sources[0].refs(base)
    if _disjoint(sources):  # nothing to remember: memory stays flat however many images come
        return chain.from_iterable(_refs(source, base) for source in sources)
    return _each_once(sources, base, repeated)


def _refs(source: Source, base: str) -> Iterator[ImageRef]:
    """The images of one of several sources; what cannot be read of it any more is one failure."""
    try:
        yield from source.refs(base)
    except SourceError as error:
        if source.streamed:
            raise
        path = source.namespace
        name, message = name_below(path, base), error.sentence(option)
        yield FailedRef(name, path, "unreadable_source", message)


def _each_once(sources: Sequence[Source], base: str, repeated: bool) -> Iterator[ImageRef]:
    """Yield the images of sources that may have some in common; a name is taken by the first."""
    taken: dict[str, str] = {}
    for source in sources:
        for ref in _refs(source, base):
            path = taken.get(ref.file_name)
            if path is None or (repeated and source.has_rows and same_place(path, ref.path)):
                taken[ref.file_name] = ref.path
                yield ref
            elif not same_place(path, ref.path):
                # A path outside the current folder, given on stdin, or a URL of another list.
                yield FailedRef(
                    public_name(ref.path),
                    ref.path,
                    "name_clash",
                    f"Its name {ref.file_name!r} is taken by {public_name(path)!r}; run the two "
                    "apart.",
                    carried=ref.carried,
                )


def _disjoint(sources: Sequence[Source]) -> bool:
    """True when no two sources can name the same image."""
    if not all(source.unique for source in sources):
        return False
    namespaces = (source.namespace for source in sources)
    roots = sorted(namespace.rstrip(os.sep) + os.sep for namespace in namespaces)
    return not any(b.startswith(a) for a, b in pairwise(roots))


def _common_parent(sources: Sequence[Source]) -> str:
    """Return the deepest folder, or URL, that the roots of all sources lie in.

    Raises SourceError for local paths beside URLs and for URLs of different buckets or hosts:
    they have nothing in common but what does not belong into names.
    """
    roots = [source.root for source in sources]
    if not any(is_remote(root) for root in roots):
        return os.path.commonpath(roots)
    protocol, _, first = roots[0].partition("://")
    common = first.split("/")
    for source in sources[1:]:
        other, _, place = source.root.partition("://")
        same = [one == two for one, two in zip(common, place.split("/"), strict=False)]
        common = common[: [*same, False].index(False)]
        if other != protocol or not common:
            raise SourceError(
                "sources",
                f"{sources[0].text!r} and {source.text!r} have no common parent (a bucket, or the "
                "local disk) that their images could be named from",
                "run them apart",
            )
    return f"{protocol}://{'/'.join(common)}"
