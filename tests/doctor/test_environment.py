"""The environment as read, and the checks of the installation."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch

from blip2cli.doctor.environment import Cache, environment, without_credentials
from blip2cli.doctor.installation import cache, image_formats, packages
from blip2cli.errors import ModelError, OptionError


def test_versions_and_devices_are_those_of_the_libraries() -> None:
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


def test_a_missing_package_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "s3fs":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert environment().versions["s3fs"] is None


def test_a_cuda_device_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name = "NVIDIA H100"
        total_memory = 80 << 30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Properties)
    found = environment()
    assert [one.name for one in found.accelerators] == ["cuda:0", "cuda:1"]
    assert found.accelerators[0].memory == 80 << 30
    assert found.large_models == "cuda (a CUDA device is there), bfloat16 (the GPU computes in it)"


def test_a_missing_device_and_an_unfit_precision_are_refused() -> None:
    with pytest.raises(OptionError, match="float16"):
        environment("cpu", "float16")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="device cpu"):
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
def test_credentials_are_removed_from_addresses(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_a_cache_that_does_not_exist_yet_has_the_free_space_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "not" / "yet"))
    found = environment().cache
    assert found.path == str(tmp_path / "not" / "yet")
    assert found.free
    assert found.writable


def test_a_full_or_read_only_cache_is_warned_of() -> None:
    place = Cache("/somewhere", 100 << 30, writable=True)
    assert cache(place).status == "ok"
    assert cache(replace(place, free=None)).status == "ok"
    little = cache(replace(place, free=5 << 20))
    assert (little.status, little.found) == (
        "warn",
        "/somewhere has 5 MiB left: models will not fit",
    )
    closed = cache(replace(place, writable=False))
    assert closed.status == "warn"
    assert "set HF_HOME" in (closed.remedy or "")


def test_image_formats_are_decoded_and_not_only_listed(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert "pillow" in (broken.remedy or "")


def test_packages_of_other_versions_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert packages().status == "ok"
    needed = ["torch>=2", "transformers>=5.10,<5.20", "nonesuch>=1", 'ray>=900; extra == "ray"']
    monkeypatch.setattr(metadata, "requires", lambda name: needed)
    found = packages()
    assert found.status == "fail"
    version = metadata.version("transformers")
    assert found.found == f"transformers {version} is not <5.20,>=5.10, nonesuch is missing"
    assert "install blip2cli again with pip" in (found.remedy or "")

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
