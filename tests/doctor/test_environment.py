"""What is said of the machine and the installation."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch

from blip2cli.doctor import environment as room
from blip2cli.doctor.environment import Cache, environment, without_credentials
from blip2cli.doctor.installation import cache, image_formats, packages
from blip2cli.errors import ModelError, OptionError


def test_it_is_what_the_libraries_say() -> None:
    found = environment()
    assert found.versions["torch"] == metadata.version("torch")
    assert found.versions["numpy"] == np.__version__
    assert found.versions["pillow"] == PIL.__version__
    assert found.versions["fsspec"]
    assert found.cpu.torch_threads == torch.get_num_threads()
    assert 1 <= found.cpu.usable_cores <= found.cpu.cores
    assert ("AVX512-BF16" in found.cpu.instructions) == torch.cpu._is_avx512_bf16_supported()
    assert bool(found.accelerators) == (
        torch.cuda.is_available() or torch.backends.mps.is_available()
    )
    assert found.image_formats["jpeg"]
    assert found.cache.free
    assert found.large_models.startswith(("cpu (", "cuda (", "mps ("))


def test_what_is_not_installed_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "s3fs":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(room.metadata, "version", version)
    assert environment().versions["s3fs"] is None


def test_a_cuda_device_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name = "NVIDIA H100"
        total_memory = 80 << 30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Properties)
    found = environment()
    assert [one.name for one in found.accelerators] == ["cuda:0", "cuda:1"]
    assert found.accelerators[0].memory == 80 << 30
    assert found.large_models == "cuda (a CUDA device is there), bfloat16 (the GPU computes in it)"


def test_devices_and_precisions_that_cannot_be_are_refused() -> None:
    with pytest.raises(OptionError, match="float16"):
        environment("cpu", "float16")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="--device cpu"):
            environment("cuda")


def test_the_hub_is_described_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "ENDPOINT", "https://me:hf_secret@mirror.example:8443/hf")
    found = environment().network
    assert found.token
    assert found.endpoint == "https://mirror.example:8443/hf"
    assert "hf_secret" not in repr(environment())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://huggingface.co", "https://huggingface.co"),
        ("http://a@b:80/x", "http://b:80/x"),
        ("http://a:p@ss@b/x", "http://b/x"),
    ],
)
def test_names_and_passwords_are_cut_from_addresses(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_a_cache_that_is_not_there_yet_has_the_room_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "not" / "yet"))
    found = environment().cache
    assert found.path == str(tmp_path / "not" / "yet")
    assert found.free
    assert found.writable


def test_caches_are_judged() -> None:
    around = environment()

    def said(**changes: Any) -> Any:
        place = Cache("/somewhere", 100 << 30, writable=True)
        return cache(replace(around, cache=replace(place, **changes)))

    assert said().status == "ok"
    assert said(free=None).status == "ok"
    little = said(free=5 << 20)
    assert (little.status, little.found) == (
        "warn",
        "/somewhere has 5 MiB left: models will not fit",
    )
    closed = said(writable=False)
    assert closed.status == "warn"
    assert "set HF_HOME" in closed.mend


def test_image_formats_are_tried_and_not_only_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image, features

    assert image_formats().status == "ok"
    check = features.check_module
    monkeypatch.setattr(features, "check_module", lambda name: name != "avif" and check(name))
    assert image_formats().status == "warn"
    real = Image.Image.save

    def save(self: Image.Image, file: Any, name: str) -> None:
        if name == "WEBP":
            raise OSError("encoder webp not available")
        real(self, file, name)

    monkeypatch.setattr(Image.Image, "save", save)
    broken = image_formats()
    assert broken.status == "fail"
    assert broken.found == "images cannot be read: WEBP (encoder webp not available)"
    assert "pillow" in (broken.mend or "")


def test_packages_have_to_be_those_blip2cli_is_written_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert packages().status == "ok"
    needed = ["torch>=2", "transformers>=5.20,<5.21", "nonesuch>=1", 'ray>=900; extra == "ray"']
    monkeypatch.setattr(metadata, "requires", lambda name: needed)
    found = packages()
    assert found.status == "fail"
    version = metadata.version("transformers")
    assert found.found == f"transformers {version} is not <5.21,>=5.20, nonesuch is missing"
    assert "install blip2cli again with pip" in (found.mend or "")

    def unknown(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", unknown)
    assert packages().status == "skipped"


def test_cores_follow_the_affinity() -> None:
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core only, or no affinity on this system")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert environment().cpu.usable_cores == 1
    finally:
        os.sched_setaffinity(0, before)
