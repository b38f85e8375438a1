"""fsspec's file system in memory under another protocol, to be subclassed with faults."""

from __future__ import annotations

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class OwnMemory(MemoryFileSystem):
    """Shares its files with ``memory://``."""

    protocol = "own"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace(f"{cls.protocol}://", "memory://"))

    @classmethod
    def register(cls) -> None:
        """Let URLs with this class's protocol lead here."""
        fsspec.register_implementation(cls.protocol, cls, clobber=True)
