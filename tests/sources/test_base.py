from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from blip2cli.errors import ImageError
from blip2cli.sources.base import FailedRef, ImageRef, absolute, name_below
from blip2cli.sources.file_size import MAX_FILE_BYTES, check_size


def failure(ref: ImageRef) -> str:
    with pytest.raises(ImageError) as caught:
        ref.read()
    assert str(caught.value).endswith(".")
    return caught.value.error_type


def test_reads_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    assert ImageRef("a", str(tmp_path / "a")).read() == b"x" * 100_000


def test_failures_have_stable_names(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", MAX_FILE_BYTES + 1)  # a hole, which takes no space on the disk
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "self").symlink_to("self")

    assert failure(ImageRef("x", str(tmp_path / "absent"))) == "missing"
    assert failure(ImageRef("x", str(tmp_path / "file" / "below"))) == "missing"
    assert failure(ImageRef("x", str(tmp_path))) == "not_a_file"
    assert failure(ImageRef("x", str(tmp_path / "pipe"))) == "not_a_file"
    assert failure(ImageRef("x", "/dev/zero")) == "not_a_file"
    assert failure(ImageRef("x", str(tmp_path / "self"))) == "read_error"
    assert failure(ImageRef("x", "with\0nul")) == "read_error"
    assert failure(ImageRef("x", str(tmp_path / "file"))) == "too_large"
    check_size(MAX_FILE_BYTES)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, whom no permission bits stop.
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert failure(ImageRef("x", str(tmp_path / "file"))) == "permission_denied"


def test_references_travel_to_workers() -> None:
    ref = ImageRef("caf\udce9.png", "/photos/caf\udce9.png")
    assert pickle.loads(pickle.dumps(ref)) == ref
    bad = FailedRef("a", "/a", "name_clash", "Its name is taken.")
    assert failure(pickle.loads(pickle.dumps(bad))) == "name_clash"


def test_absolute_follows_links_before_going_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep")
    monkeypatch.chdir(tmp_path)
    assert absolute("link/../x.png") == str(tmp_path / "real" / "x.png")
    assert absolute("./a//b.png") == str(tmp_path / "a" / "b.png")
    assert absolute("link/..") == str(tmp_path / "real")
    assert absolute("link") == str(tmp_path / "link")


def test_names_are_relative_and_never_start_with_a_slash() -> None:
    assert name_below("/a/b/c.png", "/a") == "b/c.png"
    assert name_below("/a/b/c.png", "/") == "a/b/c.png"
    assert name_below("/ab/c.png", "/a") == "ab/c.png"


def test_listing_images_imports_nothing_heavy() -> None:
    code = (
        "import sys, blip2cli.sources;"
        "print({'torch', 'numpy', 'PIL', 'pyarrow', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
