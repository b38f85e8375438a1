from __future__ import annotations

from pathlib import Path

import pytest

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint import resolve as resolving
from blip2cli.model.checkpoint.resolve import resolve


def test_directory(opt_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(str(opt_directory)).path == opt_directory
    monkeypatch.chdir(opt_directory.parent)
    assert resolve(opt_directory.name).path == Path(opt_directory.name)


def test_embedded_name(opt_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "embedded_path", lambda name: opt_directory)
    assert resolve("tiny").path == opt_directory


def test_embedded_model_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolving, "embedded_path", lambda name: tmp_path / name)
    with pytest.raises(ModelError, match="install blip2cli again"):
        resolve("tiny")


@pytest.mark.parametrize("name", ["tinny", "Tiny", "tiny-"])
def test_near_misses_of_embedded_names(name: str) -> None:
    with pytest.raises(ModelError, match=r"did you mean tiny\?$"):
        resolve(name)


def test_near_misses_of_directories(opt_directory: Path) -> None:
    close = opt_directory.parent / "optt"
    with pytest.raises(ModelError) as caught:
        resolve(str(close))
    assert str(caught.value).endswith(f"; did you mean {opt_directory}?")


@pytest.mark.parametrize("name", ["nothing-like-it", "a/b/c", "./x/y", "/no/where", "../x", ""])
def test_names_that_are_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError):
        resolve(name)


def test_file_instead_of_a_directory(opt_directory: Path) -> None:
    with pytest.raises(ModelError, match="is a file; give the directory"):
        resolve(str(opt_directory / "model.safetensors"))


def test_revision_of_a_directory_is_refused(opt_directory: Path) -> None:
    with pytest.raises(ModelError, match="leave it out"):
        resolve(str(opt_directory), "main")


def test_failed_hub_ids_get_suggestions_too(
    opt_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, revision: str | None) -> None:
        raise ModelError("model", f"there is no model {name}")

    monkeypatch.setattr(resolving, "fetch", fail)
    monkeypatch.chdir(opt_directory.parent.parent)
    typed = f"{opt_directory.parent.name}/optt"
    with pytest.raises(ModelError) as caught:
        resolve(typed)
    meant = f"{opt_directory.parent.name}/{opt_directory.name}"
    assert str(caught.value) == f"there is no model {typed}; did you mean {meant}?"
