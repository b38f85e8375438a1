"""Versions, devices, processor, memory, cache and network: facts, without a verdict."""

from __future__ import annotations

import os
import platform
import shutil
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from blip2cli.system.cores import available_cores
from blip2cli.system.memory import Memory, memory

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "numpy",
    "pillow",
    "pyarrow",
)
OPTIONAL = ("fsspec", "s3fs", "obstore", "gcsfs", "ray", "accelerate")


@dataclass(frozen=True)
class Accelerator:
    """A device other than the processor."""

    name: str  # "cuda:0", "mps"
    kind: str  # what the maker calls it
    memory: int | None  # bytes
    bfloat16: bool


@dataclass(frozen=True)
class Cpu:
    """The processor."""

    model: str
    usable_cores: int  # after affinity and cgroup quotas
    cores: int
    torch_threads: int
    instructions: tuple[str, ...]  # those that matter to a model: AVX2 … AMX


@dataclass(frozen=True)
class Cache:
    """The cache of models from the hub."""

    path: str
    free: int | None  # bytes; None where that cannot be read
    writable: bool


@dataclass(frozen=True)
class Network:
    """The connection to the hub."""

    offline: bool  # HF_HUB_OFFLINE
    endpoint: str  # without credentials
    token: bool  # whether there is one; never which


@dataclass(frozen=True)
class Environment:
    """Everything about the machine that a run depends on."""

    blip2cli: str
    python: str
    system: str
    versions: dict[str, str | None]  # by package; None: not installed
    image_formats: dict[str, str | None]  # version of the library behind it; None: not built in
    accelerators: tuple[Accelerator, ...]
    cpu: Cpu
    memory: Memory
    cache: Cache
    network: Network
    large_models: str  # device and precision of a model of a GiB or more, and why


def environment(device: str = "auto", dtype: str = "auto") -> Environment:
    """Read the environment.

    Raises OptionError or ModelError where the machine has no such ``device``, or ``dtype`` does
    not fit it.
    """
    import torch
    from huggingface_hub import constants, get_token

    from blip2cli import __version__
    from blip2cli.model.families import OPT
    from blip2cli.model.placement.dtype import place

    return Environment(
        blip2cli=__version__,
        python=platform.python_version(),
        system=platform.platform(terse=True),
        versions={name: _version(name) for name in (*PACKAGES, *OPTIONAL)},
        image_formats=_image_formats(),
        accelerators=_accelerators(),
        cpu=Cpu(
            model=_processor(),
            usable_cores=available_cores(),
            cores=os.cpu_count() or 1,
            torch_threads=torch.get_num_threads(),
            instructions=_instructions(),
        ),
        memory=memory(),
        cache=_cache(),
        network=Network(
            offline=constants.is_offline_mode(),
            endpoint=without_credentials(constants.ENDPOINT),
            token=get_token() is not None,
        ),
        large_models=place(device, dtype, OPT, 1 << 30).reason,  # type: ignore[arg-type]
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _image_formats() -> dict[str, str | None]:
    from PIL import features

    turbo = features.check_feature("libjpeg_turbo")
    found = {"jpeg": features.version_codec("jpg"), "png": features.version_codec("zlib")}
    found["jpeg_turbo"] = features.version_feature("libjpeg_turbo") if turbo else None
    for name in ("webp", "avif"):
        found[name] = features.version_module(name) if features.check_module(name) else None
    found["tiff"] = features.version_codec("libtiff")
    return found


def _accelerators() -> tuple[Accelerator, ...]:
    import torch

    from blip2cli.model.placement.cuda_devices import cuda_count, has_bfloat16

    found = []
    for number in range(cuda_count()):
        gpu = torch.cuda.get_device_properties(number)
        bfloat16 = has_bfloat16(torch.device("cuda", number))
        found.append(Accelerator(f"cuda:{number}", gpu.name, gpu.total_memory, bfloat16))
    if torch.backends.mps.is_available():
        found.append(Accelerator("mps", "Apple GPU", None, False))
    return tuple(found)


def _instructions() -> tuple[str, ...]:
    """Vector instructions that decide the speed of a model, as far as this torch reports them."""
    import torch

    flags = {
        "AVX2": "_is_avx2_supported",
        "AVX512": "_is_avx512_supported",
        "AVX512-VNNI": "_is_vnni_supported",
        "AVX512-BF16": "_is_avx512_bf16_supported",
        "AMX": "_is_amx_tile_supported",
    }
    return tuple(
        name for name, query in flags.items() if getattr(torch.cpu, query, lambda: False)()
    )


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _cache() -> Cache:
    from huggingface_hub import constants

    path = Path(constants.HF_HUB_CACHE)
    # Of a cache that does not exist yet, the folder it would be made in.
    folder = next((parent for parent in (path, *path.parents) if parent.is_dir()), None)
    free = None
    if folder is not None:
        with suppress(OSError):
            free = shutil.disk_usage(folder).free
    writable = folder is not None and os.access(folder, os.W_OK | os.X_OK)
    return Cache(str(path), free, writable)


def without_credentials(url: str) -> str:
    """``url`` without a user's name and password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host).geturl()
