"""Names of files are UTF-8 in every locale."""

from __future__ import annotations

import contextlib
import os
import sys


def enter_utf8_mode() -> None:
    """Start the process anew in Python's UTF-8 mode where the locale has another encoding.

    Else the same file would have another name in the rows, and names on disk, in manifests and in
    outputs would not agree. What is printed for people stays in the encoding of the terminal.
    """
    if sys.getfilesystemencoding().lower() == "utf-8" or not sys.executable:
        return
    environment = dict(os.environ)
    environment.setdefault("PYTHONIOENCODING", getattr(sys.stderr, "encoding", None) or "utf-8")
    if not sys.flags.safe_path:  # set since by us; ``-m`` may have found the package right here
        environment.pop("PYTHONSAFEPATH", None)
    with contextlib.suppress(OSError):  # then names are those of the locale
        os.execve(sys.executable, [sys.executable, "-X", "utf8=1", *sys.orig_argv[1:]], environment)
