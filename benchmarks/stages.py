"""``python benchmarks/stages.py ARGUMENTS…`` runs ``blip2cli ARGUMENTS…`` and marks its stages.

A line ``{"mark": NAME}`` goes to stderr when Python runs, when torch has been imported and when the
first image has been decoded; whoever reads them notes the time. The command itself is unchanged:
the marks are set by an import hook, at the end of the modules' own import.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def mark(name: str) -> None:
    """Say that a stage has been reached."""
    print(json.dumps({"mark": name}), file=sys.stderr, flush=True)


class _After(Loader):
    """Another loader, and something to do when it is done."""

    def __init__(self, loader: Any, then: Callable[[ModuleType], None]) -> None:
        self.loader, self.then = loader, then

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the loader does."""
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """As the loader does, and then what is to follow."""
        self.loader.exec_module(module)
        self.then(module)


class _Hook(MetaPathFinder):
    """Finds the watched modules by the other finders."""

    def __init__(self, watched: dict[str, Callable[[ModuleType], None]]) -> None:
        self.watched = watched

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec, with a loader that tells."""
        then = self.watched.pop(name, None)
        if then is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = _After(spec.loader, then)
                return spec
        return None


def _watch_decoding(module: ModuleType) -> None:
    """Every way to decode that the module has."""
    seen: list[str] = []

    def watch(decode: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            found = decode(*arguments, **options)
            if not seen:
                seen.append(decode.__name__)
                mark("first image decoded")
            return found

        return watched

    for name, value in list(vars(module).items()):
        if name.startswith("decode") and callable(value):
            setattr(module, name, watch(value))


if __name__ == "__main__":
    mark("Python started")
    torch_mark: Callable[[ModuleType], None] = lambda _: mark("torch imported")  # noqa: E731
    sys.meta_path.insert(0, _Hook({"torch": torch_mark, "blip2cli.images.decode": _watch_decoding}))
    from blip2cli.cli.app import main

    main()
