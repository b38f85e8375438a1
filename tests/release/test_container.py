"""The ``Containerfile``: sound, and built and run where there is a builder.

``BLIP2CLI_TEST_BUILDAH`` holds more options of ``buildah build``, such as ``--build-arg BASE=…``
where no registry can be reached. Where images are stored says ``CONTAINERS_STORAGE_CONF``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blip2cli import __version__

ROOT = Path(__file__).parents[2]
FILE = ROOT / "Containerfile"
MORE = shlex.split(os.environ.get("BLIP2CLI_TEST_BUILDAH", ""))
BUILDAH = ["buildah"]

pytestmark = pytest.mark.external


def run(*words: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False, timeout=600, **more
    )  # type: ignore[call-overload]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = shutil.which("hadolint") if not hadolint.exists() else str(hadolint)
    if found is None:
        pytest.skip("hadolint is not installed")
    done = run(found, "--failure-threshold", "style", FILE)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_image_is_pinned_and_nobody_is_root() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert re.search(r"^ARG BASE=\S+:\d+\.\d+\.\d+-\S+$", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {
        "${BASE}",
        *re.findall(r" AS (\S+)$", text, re.MULTILINE),
    }
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["1000"]


@pytest.fixture(scope="module")
def image() -> str:
    """The variant for processors, built."""
    if shutil.which("buildah") is None:
        pytest.skip("there is no buildah")
    if not any("BASE=" in word for word in MORE):
        base = re.search(r"^ARG BASE=(\S+)$", FILE.read_text(), re.MULTILINE)
        assert base is not None
        if run(*BUILDAH, "pull", base[1]).returncode:
            pytest.skip("the base image cannot be pulled, and BLIP2CLI_TEST_BUILDAH names none")
    name = "localhost/blip2cli-test"
    build = ["build", "--isolation", "chroot", "--file", FILE, "--tag", name, *MORE, ROOT]
    done = run(*BUILDAH, *build)
    assert done.returncode == 0, done.stdout + done.stderr
    return name


def test_the_image_runs_the_command_as_somebody(image: str) -> None:
    found = run(*BUILDAH, "inspect", "--type", "image", image)
    settings = json.loads(found.stdout)["OCIv1"]["config"]
    assert settings["Entrypoint"] == ["blip2cli"]
    assert settings["User"] == "1000"
    assert settings["Volumes"] == {"/cache": {}}
    assert "HF_HOME=/cache/huggingface" in settings["Env"]


def test_the_image_captions_as_somebody(image: str) -> None:
    container = run(*BUILDAH, "from", image).stdout.strip()
    try:
        inside = [*BUILDAH, "run", "--isolation", "chroot"]
        volume = f"{ROOT / 'sample_images'}:/data/sample_images:ro"
        command = [*inside, "--volume", volume, container, "--", "blip2cli"]
        assert run(*command, "--version").stdout == f"blip2cli {__version__}\n"
        done = run(*command, "caption", "sample_images/cats.png", "--model", "tiny")
        assert done.returncode == 0, done.stderr
        row = json.loads(done.stdout)
        assert row["caption"] == "two cats and a pizza on a blue background"
        assert run(*inside, container, "--", "id", "-un").stdout == "blip2cli\n"
        assert run(*inside, container, "--", "touch", "/cache/x").returncode == 0
    finally:
        run(*BUILDAH, "rm", container)
