"""The scripts of ``docs/``, which are no package, as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[2] / "docs"


def load_script(name: str) -> ModuleType:
    """``docs/NAME.py``, run anew."""
    found = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses look for it there
    sys.path.insert(0, str(DOCS))  # as of a script that is run: it may import its neighbours
    found.loader.exec_module(module)
    sys.path.pop(0)
    return module
