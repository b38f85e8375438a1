"""Keeps the folder a user stands in from running code: it may hold a ``socket.py`` or a ``git``.

Python takes an empty element of ``PYTHONPATH``, and whoever runs commands one of ``PATH``, for the
current folder.
"""

from __future__ import annotations

import contextlib
import os
import sys

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


def leave_out_current_folder() -> None:
    """Look for modules and commands, here and in processes started from here, elsewhere.

    Folders that the user named stay, and so does a checkout that blip2cli itself is run from.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    if "PATH" in os.environ:
        folders = os.environ["PATH"].split(os.pathsep)
        os.environ["PATH"] = os.pathsep.join(filter(os.path.isabs, folders)) or os.defpath
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if len(named) > 1 and "" in named:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, named))
        with contextlib.suppress(OSError, ValueError):  # the folder is gone; it is not searched
            current = os.getcwd()
            if current != _PACKAGE and current not in named:
                sys.path.remove(current)


def leave_out_first_folder() -> None:
    """The same for the folder where ``python -m`` looks first."""
    if not sys.flags.safe_path and sys.path[0] != _PACKAGE:
        del sys.path[0]
