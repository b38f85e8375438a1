"""The wheel: what is in it, and that it works away from the checkout."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from blip2cli import __version__
from tests.command import environment

ROOT = Path(__file__).parent.parent
WEIGHTS = "blip2cli/tiny/weights"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from a copy of the checkout, so that the build leaves nothing in it."""
    copy = tmp_path_factory.mktemp("source") / "blip2cli"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, copy)
    skipped = shutil.ignore_patterns("__pycache__")
    for name in ("blip2cli", "training"):  # the wheel leaves training out
        shutil.copytree(ROOT / name, copy / name, ignore=skipped)
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (built,) = out.glob("*.whl")
    return built


def test_everything_that_is_needed_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"blip2cli-{__version__}.dist-info"
        modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("blip2cli/**/*.py")}
        assert modules <= names
        needed = {
            "blip2cli/py.typed",
            "blip2cli/tiny/assets/NOTICE",
            *(f"blip2cli/report/page/{name}" for name in ("page.html", "list.css", "main.js")),
            *(f"{WEIGHTS}/tiny/{part}.safetensors" for part in ("vision", "qformer", "language")),
            f"{WEIGHTS}/tiny-t5/language.safetensors",
            f"{WEIGHTS}/tiny-instruct/qformer.safetensors",
            f"{WEIGHTS}/tiny-instruct/qformer_tokenizer/tokenizer.json",
            *(
                f"{WEIGHTS}/{model}/{file}"
                for model in ("tiny", "tiny-t5", "tiny-itm", "tiny-instruct")
                for file in (
                    "README.md",
                    "config.json",
                    "model.safetensors.index.json",
                    "tokenizer.json",
                    "processor_config.json",
                )
            ),
            "blip2cli/report/page/list.css",
            "blip2cli/report/page/page.html",
            *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("blip2cli/report/page/*.js")),
            f"{info}/licenses/LICENSE",
            f"{info}/licenses/blip2cli/tiny/assets/NOTICE",
        }
        assert needed <= names, needed - names
        assert not [name for name in names if not name.startswith(("blip2cli/", f"{info}/"))]
        weights = sum(i.file_size for i in archive.infolist() if i.filename.startswith(WEIGHTS))
        assert weights <= 20_000_000
        entry = archive.read(f"{info}/entry_points.txt").decode()
        assert "blip2cli = blip2cli.cli.app:main" in entry
        licence = archive.read(f"{info}/licenses/LICENSE").decode()
        assert "Apache License" in licence
        assert "APPENDIX: How to apply" in licence


def test_the_wheel_captions_an_image_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # The heavy dependencies are borrowed from this environment, so no network is needed. A .pth
    # file only adds a folder: the editable install there does not come along.
    folders = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(folders) + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(ROOT / "sample_images" / "cats.png", elsewhere)
    env = environment(tmp_path / "hf")
    env.pop("PYTHONPATH", None)  # may name the checkout
    where = subprocess.run(
        [python, "-c", "import blip2cli; print(blip2cli.__file__)"],
        cwd=elsewhere,
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert Path(where.stdout.strip()).is_relative_to(home)
    for model in ("tiny", "tiny-instruct"):  # this one needs files of two others beside its own
        done = subprocess.run(
            [python, "-m", "blip2cli", "caption", "cats.png", "--model", model],
            cwd=elsewhere,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        row = json.loads(done.stdout)
        assert row["file_name"] == "cats.png"
        assert row["caption"] == "two cats and a pizza on a blue background"


def declared() -> list[Requirement]:
    """What an installation needs, by ``pyproject.toml``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in project["dependencies"]]


def pinned(file: str) -> dict[str, str]:
    """Package to version, of a constraints or lock file."""
    lines = (ROOT / file).read_text().splitlines()
    found = (re.match(r"([\w-]+)==([^ ]+)", line) for line in lines)
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def test_tested_versions_satisfy_the_declared_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tested = pinned("constraints.txt")
    assert tested["torch"] == "2.13.0"
    for text in (*project["dependencies"], *project["optional-dependencies"]["dev"]):
        requirement = Requirement(text)
        assert requirement.specifier, f"{text} has no lower bound"
        version = tested.get(requirement.name.lower())
        assert version is not None, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(version), (text, version)


def test_the_oldest_versions_that_are_tested_are_the_declared_bounds() -> None:
    bounds = {
        requirement.name: bound.version
        for requirement in declared()
        for bound in requirement.specifier
        if bound.operator == ">="
    }
    assert pinned("constraints-lowest.txt") == bounds


def test_the_lock_file_holds_what_was_tested_with_hashes() -> None:
    locked, tested = pinned("requirements.lock"), pinned("constraints.txt")
    assert {requirement.name for requirement in declared()} <= locked.keys()
    both = locked.keys() & tested.keys()
    assert {name: locked[name] for name in both} == {name: tested[name] for name in both}
    pins = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text())
    without = [pin for pin in pins if not pin.startswith("#") and "--hash=sha256:" not in pin]
    assert not without


def test_every_imported_package_is_declared() -> None:
    optional = {"bitsandbytes", "obstore", "ray", "torchao"}  # asked for when needed
    imported = {
        name.split(".")[0]
        for path in (ROOT / "blip2cli").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    foreign = imported - set(sys.stdlib_module_names) - {"blip2cli"} - optional
    provided = packages_distributions()
    names = {provided[module][0].lower().replace("_", "-") for module in foreign}
    assert names <= {requirement.name for requirement in declared()}
