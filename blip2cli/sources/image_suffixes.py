"""The suffixes by which folders and archives are searched for images."""

from __future__ import annotations

# What a folder is searched for. HEIC and JPEG XL are in the list although they may not decode
# here: a folder of phone photographs must report them, not pass over them in silence.
# fmt: off
IMAGE_SUFFIXES: frozenset[str] = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".gif",
    ".tif", ".tiff", ".bmp", ".dib", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm",
    ".qoi", ".ico", ".heic", ".heif", ".jxl",
})
# fmt: on
