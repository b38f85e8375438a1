"""Error sentences on stderr. Imports next to nothing: mistakes are answered from here."""

from __future__ import annotations

import errno
import os
import sys
from typing import TextIO

from blip2cli.exit_codes import RUN_FAILED

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EAGAIN)


def complain(sentence: str) -> None:
    """Print one error sentence; red on a terminal unless ``NO_COLOR`` says otherwise."""
    from blip2cli.storage.secrets import hide_secrets
    from blip2cli.storage.text_encoding import printable

    prefix = "\x1b[31mblip2cli:\x1b[0m" if coloured(sys.stderr) else "blip2cli:"
    print(f"{prefix} {hide_secrets(printable(sentence))}", file=sys.stderr)


def unexpected(error: Exception, verbosity: int) -> int:
    """Report an error that is our own fault, with its traceback for ``-vv``. Returns 1."""
    if verbosity >= 2:
        import traceback

        from blip2cli.storage.secrets import hide_secrets
        from blip2cli.storage.text_encoding import printable

        for line in "".join(traceback.format_exception(error)).splitlines():
            print(hide_secrets(printable(line)), file=sys.stderr)
    if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:
        # Writing a file fails with its name; what is left is what was printed on stdout.
        complain(f"Writing 'stdout' failed ({error.strerror}).")
        return RUN_FAILED
    what = " ".join(str(error).split()) or "no details"
    hint = "" if verbosity >= 2 else "; run again with -vv for the traceback"
    complain(f"Internal error: {type(error).__name__}: {what}{hint}.")
    return RUN_FAILED


def coloured(stream: TextIO) -> bool:
    """Whether colour suits ``stream``; ``NO_COLOR`` wins over ``FORCE_COLOR``."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"
