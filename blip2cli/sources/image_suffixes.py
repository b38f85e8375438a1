"""The suffixes by which folders and archives are searched for images."""

from __future__ import annotations

from collections.abc import Mapping

# What a folder is searched for. HEIC and JPEG XL are in the list although they may not decode
# here: a folder of phone photographs must report them, not pass over them in silence.
# fmt: off
IMAGE_SUFFIXES: frozenset[str] = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".gif",
    ".tif", ".tiff", ".bmp", ".dib", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm",
    ".qoi", ".ico", ".heic", ".heif", ".jxl",
})
# Pictures of kinds that are not read, and files that may be any: a folder's are counted, and the
# summary says so.
OTHER_SUFFIXES: frozenset[str] = frozenset({
    "", ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".kdc", ".mef", ".mos",
    ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw", ".x3f",
    ".psd", ".psb", ".xcf", ".kra", ".ai", ".eps", ".svg", ".exr", ".hdr", ".dds", ".tga", ".pcx",
    ".djvu", ".dcm", ".fits",
})
# fmt: on


def listed_others(counts: Mapping[str, int]) -> str:
    """Files of kinds that are not read, in words: the most frequent first."""
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in ordered)
