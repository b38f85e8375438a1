"""``make dist``: the same bytes anywhere and at any time, whole, and ready to be uploaded."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blip2cli import __version__
from tests.command import environment

ROOT = Path(__file__).parents[2]
NAMES = [f"blip2cli-{__version__}-py3-none-any.whl", f"blip2cli-{__version__}.tar.gz"]
CODE = 1_000_000  # bytes that the rest may take, packed, beside the embedded models
UNWANTED = ("__pycache__", ".pyc", "tests/", "training/", "benchmarks/", ".venv", ".egg-info")

pytestmark = pytest.mark.external


def clone(folder: Path) -> Path:
    """A clone of the checkout, of what is committed."""
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, folder], check=True, timeout=120)
    return folder


def make_dist(checkout: Path, umask: int, **more: str) -> Path:
    """Run ``make dist`` in a clone, by the environment of the tests."""
    home = Path(sys.executable).parents[1]
    done = subprocess.run(
        ["make", "dist", f"VENV={home}", f"--old-file={home}/.installed-release"],
        cwd=checkout,
        env={**os.environ, **more},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2, done.stdout  # twine's word for each file
    return checkout / "dist"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("here") / "blip2cli")


@pytest.fixture(scope="module")
def dist(checkout: Path) -> Path:
    return make_dist(checkout, 0o022, PYTHONHASHSEED="1", TZ="UTC")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_archives_are_the_same_bytes_in_another_folder_at_another_time(
    dist: Path, tmp_path: Path
) -> None:
    other = clone(tmp_path / "somewhere else" / "a-clone")
    for path in other.rglob("*.py"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o600)
    settings = {"PYTHONHASHSEED": "2", "TZ": "Pacific/Auckland", "LC_ALL": "C", "USER": "somebody"}
    again = make_dist(other, 0o077, **settings)
    assert sorted(digests(dist)) == NAMES
    assert digests(again) == digests(dist)


def test_a_wheel_that_is_built_from_the_checkout_is_that_of_the_source_distribution(
    dist: Path, checkout: Path, tmp_path: Path
) -> None:
    made = ["git", "log", "-1", "--format=%ct"]
    epoch = subprocess.run(made, cwd=checkout, capture_output=True, text=True, check=True).stdout
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, "."],
        cwd=checkout,
        env={**os.environ, "SOURCE_DATE_EPOCH": epoch.strip()},
        check=True,
        capture_output=True,
        timeout=300,
    )
    assert digests(tmp_path)[NAMES[0]] == digests(dist)[NAMES[0]]


def test_the_archives_hold_the_package_and_no_more(dist: Path, checkout: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "blip2cli"], cwd=checkout, capture_output=True, text=True, check=True
    )
    package = set(listed.stdout.splitlines())
    assert "blip2cli/tiny/weights/tiny/vision.safetensors" in package
    with zipfile.ZipFile(dist / NAMES[0]) as wheel:
        names = set(wheel.namelist())
        times = {entry.date_time for entry in wheel.infolist()}
    info = f"blip2cli-{__version__}.dist-info/"
    assert {name for name in names if not name.startswith(info)} == package
    with tarfile.open(dist / NAMES[1]) as source:
        members = source.getmembers()
    top = f"blip2cli-{__version__}/"
    beside = {"CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml", ".gitignore"}
    assert {each.name.removeprefix(top) for each in members} == package | beside
    assert not [name for name in package for word in UNWANTED if word in name]
    # Nothing of the machine: one time, one owner, two modes.
    assert {(each.uid, each.gid, each.uname, each.gname) for each in members} == {(0, 0, "", "")}
    assert {each.mode for each in members} <= {0o644, 0o755}
    (stamp,) = {each.mtime for each in members}
    (time,) = times
    assert datetime(*time, tzinfo=UTC).timestamp() == pytest.approx(stamp, abs=2)


def test_the_archives_are_no_larger_than_the_models_make_them(dist: Path) -> None:
    models = (ROOT / "blip2cli/tiny/weights").rglob("*.safetensors")
    largest = sum(path.stat().st_size for path in models) + CODE
    for path in dist.iterdir():
        assert path.stat().st_size <= largest, path.name


def test_the_wheel_works_where_pip_installs_it(dist: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    scripts = home / "bin"
    pip = [sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    subprocess.run([*pip, *offline, dist / NAMES[0]], check=True, timeout=120)
    # The dependencies are those of the tests.
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))
    paths = [each for each in sys.path if each.endswith("site-packages")]
    (site / "borrowed.pth").write_text("".join(f"{each}\n" for each in paths))
    shutil.copy(ROOT / "sample_images" / "cats.png", tmp_path)
    env = environment(tmp_path / "hf")
    env.pop("PYTHONPATH", None)  # may name the checkout

    def say(*words: str) -> str:
        command = [scripts / "blip2cli", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert say("--version") == f"blip2cli {__version__}\n"
    row = json.loads(say("caption", "cats.png", "--model", "tiny"))
    assert row["caption"] == "two cats and a pizza on a blue background"
