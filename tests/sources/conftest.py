from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blip2cli.options import SourceOptions
from blip2cli.sources import open_sources
from blip2cli.storage.s3_reads import objects_of
from tests.s3_server import S3


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Create empty files below a fresh folder and return it."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        return tmp_path

    return make


@pytest.fixture
def names() -> Callable[..., list[str]]:
    """The file names that sources give."""

    def listed(*sources: object, stdin: bytes | None = None, **options: object) -> list[str]:
        stream = None if stdin is None else io.BytesIO(stdin)
        chosen = SourceOptions(tuple(str(s) for s in sources), **options)  # type: ignore[arg-type]
        return [ref.file_name for ref in open_sources(chosen, stream)]

    return listed


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The S3 server, reached through the environment as a user would."""
    import s3fs

    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    objects_of.cache_clear()
    yield s3
    s3fs.S3FileSystem.clear_instance_cache()
    objects_of.cache_clear()
