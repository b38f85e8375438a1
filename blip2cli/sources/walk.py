"""Tree walk over local folders and URLs: lazily, in a stated order, without being caught in a loop.

Order: bytewise by path component, folders and files interleaved, that is the order of the tuples
of encoded components. Each folder is listed when its turn comes, so the first names are out
before the last folder is opened, and memory holds one listing per level.

A walk takes two objects: a *tree*, which lists folders (``local_tree.LocalTree``, or the one of
``readers.remote``), and *rules*, which say what is an image and which folders are entered
(``local_tree.FollowLinks``, or ``PatternRules``).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from blip2cli.sources.base import FailedRef, ImageRef, name_below
from blip2cli.sources.image_suffixes import IMAGE_SUFFIXES, OTHER_SUFFIXES
from blip2cli.sources.patterns import PathPattern
from blip2cli.storage.remote_errors import RemoteError

SUFFIXES = frozenset(os.fsencode(s) for s in IMAGE_SUFFIXES)
OTHERS = frozenset(os.fsencode(s) for s in OTHER_SUFFIXES)

# One entry of a listing: name, whether it is a folder, whether it is a symbolic link, and the size
# in bytes if the listing gives it.
Entry = tuple[bytes, bool, bool, "int | None"]
State = TypeVar("State")


class Tree(Protocol):
    """A hierarchy of folders."""

    # Where files below a folder are counted that may be pictures, but are not read.
    others: Counter[str] | None

    def listing(self, folder: bytes, hidden: bool) -> Iterable[Entry]:
        """The folders and files in ``folder``, sorted bytewise; names with a leading dot only if
        ``hidden``. Raises OSError when the folder cannot be listed."""

    def encode(self, path: str) -> bytes:
        """A path as bytes, which is how paths are ordered."""

    def decode(self, path: bytes) -> str:
        """A path, or one component of it, as text."""

    def images_below(self, top: str, base: str) -> Iterator[ImageRef]:
        """Yield the images below the folder ``top``, named relative to ``base``. Raises OSError
        when ``top`` cannot be listed."""

    @property
    def reference(self) -> Callable[..., ImageRef]:
        """The class of references to its files; made with ``size`` where listings give it."""


class Rules(Protocol[State]):
    """Which files are images and which folders are entered; each such folder has a state."""

    @property
    def start(self) -> State:
        """The state of the folder where the walk begins."""

    def takes(self, state: State, name: bytes) -> bool:
        """Whether the file ``name`` in a folder of this state is an image."""

    def enter(self, state: State, path: bytes, name: bytes, is_link: bool) -> State | None:
        """The state of the folder ``path``, named ``name`` in a folder of state ``state``; None
        when it is not entered. Raises OSError when it cannot be examined."""

    def lists_hidden(self, state: State) -> bool:
        """Whether names with a leading dot are listed in a folder of this state."""

    def takes_all(self, state: State) -> bool:
        """Whether every image below a folder of this state is meant."""


def is_image(name: bytes, others: Counter[str] | None) -> bool:
    """True when ``name`` ends like an image's; counts in ``others`` what may be a picture all the
    same, by suffix."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in SUFFIXES:
        return True
    if others is not None and suffix in OTHERS:
        others[suffix.decode()] += 1
    return False


@dataclass(frozen=True)
class MatchedFolder:
    """A folder that a pattern matches: every image below it is meant."""

    path: str


def walk(
    tree: Tree,
    top: str,
    rules: Rules[State],
    base: str,
    reference: Callable[..., Any] | None = None,
) -> Iterator[Any]:
    """Yield the images that ``rules`` take below the folder ``top``, named relative to ``base``.

    They are what ``reference`` makes of name and path, if not what the tree does. A folder that
    ``rules`` take as a whole comes as ``MatchedFolder``, one below ``top`` that cannot be listed as
    one failed image. Raises OSError when ``top`` itself cannot be listed.
    """
    takes, decode, reference = rules.takes, tree.decode, reference or tree.reference
    # An explicit stack: a tree may be deeper than Python's recursion limit.
    start, encoded = rules.start, tree.encode(top)
    stack = [(encoded, iter(tree.listing(encoded, rules.lists_hidden(start))), start)]
    while stack:
        folder, remaining, state = stack[-1]
        # Joined, decoded and named once: a folder may hold millions.
        inside = os.path.join(folder, b"")
        where = decode(inside)
        named = name_below(where, base)
        for name, is_folder, is_link, size in remaining:
            if not is_folder:
                if takes(state, name):
                    file = decode(name)
                    if size is None:
                        yield reference(named + file, where + file)
                    else:
                        yield reference(named + file, where + file, size=size)
                continue
            below = inside + name
            try:
                inner = rules.enter(state, below, name, is_link)
                if inner is None:
                    continue
                if rules.takes_all(inner):
                    yield MatchedFolder(decode(below))
                    continue
                entries = iter(tree.listing(below, rules.lists_hidden(inner)))
            except OSError as error:
                yield unlistable_ref(decode(below), error, base)
                continue
            stack.append((below, entries, inner))
            break
        else:
            stack.pop()


def unlistable_ref(path: str, error: OSError, base: str) -> FailedRef:
    """One failed image that stands for a folder whose images cannot be seen."""
    if isinstance(error, RemoteError):
        error_type = error.of_image().error_type
    else:
        error_type = "permission_denied" if isinstance(error, PermissionError) else "read_error"
    message = f"This folder cannot be listed ({error.strerror}), its images are left out."
    return FailedRef(name_below(path, base), path, error_type, message)


@dataclass(frozen=True)
class PatternRules:
    """Rules of a glob pattern; the state of a folder is that of the pattern."""

    pattern: PathPattern
    decode: Callable[[bytes], str]  # of the tree
    start: frozenset[int] = frozenset({0})
    others: Counter[str] | None = None

    def takes(self, state: frozenset[int], name: bytes) -> bool:
        """Whether a file matches; unless the pattern ends in a suffix, only images do."""
        after = self.pattern.step(state, self.decode(name), is_folder=False)
        return self.pattern.end in after and (
            self.pattern.names_suffix or is_image(name, self.others)
        )

    def enter(
        self, state: frozenset[int], path: bytes, name: bytes, is_link: bool
    ) -> frozenset[int] | None:
        """The state after one more component; None when nothing below can match."""
        after = self.pattern.step(state, self.decode(name), is_folder=True, is_link=is_link)
        return after if self.takes_all(after) else after - {self.pattern.end} or None

    def lists_hidden(self, state: frozenset[int]) -> bool:
        return self.pattern.wants_hidden(state)

    def takes_all(self, state: frozenset[int]) -> bool:
        """Whether the pattern matches the folder itself."""
        return self.pattern.end in state and not self.pattern.names_suffix
