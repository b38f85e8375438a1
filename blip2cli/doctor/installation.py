"""Checks of the installation, apart from the embedded model."""

from __future__ import annotations

import io
from importlib import metadata

from blip2cli.doctor.environment import Cache
from blip2cli.doctor.report import Outcome, fail, ok, skipped, warn
from blip2cli.errors import ImageError

# Bytes below which a download of a model fails for sure.
_LEAST_FREE = 1 << 30
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def packages() -> Outcome:
    """The dependencies are installed, in the versions blip2cli is written for, and torch can use
    the GPU if there is one.

    An upgrade of transformers beyond them has changed texts without an error (transformers issue
    38858).
    """
    from packaging.requirements import Requirement  # comes with transformers

    try:
        lines = metadata.requires("blip2cli") or []
    except metadata.PackageNotFoundError:
        return _driver() or skipped("blip2cli runs from a folder; pip knows nothing of it")
    wrong = []
    needed = [Requirement(line) for line in lines]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    for one in needed:
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(version, prereleases=True):
            wrong.append(f"{one.name} {version} is not {one.specifier}")
    if wrong:
        return fail(", ".join(wrong), "install blip2cli again with pip, which brings what it needs")
    return _driver() or ok(f"{len(needed)} packages in versions that blip2cli is written for")


def _driver() -> Outcome | None:
    """Why torch cannot use a GPU that is there; None: it can, or there is none."""
    from blip2cli.model.placement.cuda_devices import REMEDY, cuda_trouble

    trouble = cuda_trouble()
    return None if trouble is None else warn(f"torch cannot use the GPU: {trouble}", REMEDY)


def image_formats() -> Outcome:
    """Images of the usual formats are decoded, by the decoder that loader workers use."""
    import numpy as np
    from PIL import Image, features

    from blip2cli.images.decode import decode

    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    wrong = []
    for name in _FORMATS:
        file = io.BytesIO()
        try:
            picture.save(file, name)
            decoded = decode(file.getvalue())
        except (ImageError, OSError, KeyError) as error:
            wrong.append(f"{name} ({error})")
            continue
        if (decoded.width, decoded.height) != picture.size:
            wrong.append(f"{name} (another size)")
    if wrong:
        return fail(
            f"images cannot be read: {', '.join(wrong)}",
            "install Pillow again from its wheel: pip install --force-reinstall pillow",
        )
    if not features.check_module("avif"):
        return warn(
            f"{', '.join(_FORMATS)} are read; AVIF is not built into this Pillow",
            "install Pillow from its wheel, if there are AVIF images",
        )
    return ok(f"{', '.join(_FORMATS)} and AVIF are read")


def cache(place: Cache) -> Outcome:
    """The cache of models from the hub can be written to, and has space."""
    if not place.writable:
        return warn(
            f"{place.path} cannot be written to: models from the hub cannot be fetched",
            "set HF_HOME to a directory you may write to",
        )
    if place.free is not None and place.free < _LEAST_FREE:
        return warn(
            f"{place.path} has {place.free / 2**20:.0f} MiB left: models will not fit",
            "make room, or set HF_HOME to a larger disk",
        )
    return ok(f"{place.path} can be written to")
