"""PNG and TIFF files of any colour model and depth, written without Pillow."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from tests.images.pictures import png_chunk

WIDTH, HEIGHT = 16, 6
DRAW = np.random.default_rng(3)


def numbers(bits: int, samples: int = 1) -> np.ndarray:
    """Values of all sizes, the smallest and the largest among them: int64 [H, W, samples]."""
    draw = np.random.default_rng((3, bits, samples))  # the same whatever tests came before
    values = draw.integers(0, 1 << bits, (HEIGHT, WIDTH, samples))
    values[0, 0], values[0, 1] = 0, (1 << bits) - 1
    return values


def packed(values: np.ndarray, bits: int, order: str = ">") -> bytes:
    """Rows of samples, each row filled up to a byte."""
    rows = values.reshape(len(values), -1)
    if bits >= 8:
        return rows.astype(f"{order}u{bits // 8}").tobytes()
    spread = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(spread.reshape(len(rows), -1), axis=1).tobytes()


def png(values: np.ndarray, bits: int, colours: int, *chunks: bytes) -> bytes:
    body = packed(values, bits)
    row = len(body) // HEIGHT
    filtered = b"".join(b"\0" + body[at : at + row] for at in range(0, len(body), row))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colours, 0, 0, 0)
    data = png_chunk(b"IDAT", zlib.compress(filtered))
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + b"".join(chunks)
        + data
        + png_chunk(b"IEND", b"")
    )


def tiff(
    values: np.ndarray,
    bits: int,
    photometric: int,
    order: str = "<",
    *,
    planar: bool = False,
    deflated: bool = False,
    body: bytes | None = None,
    **more: tuple[int, ...],
) -> bytes:
    """An uncompressed TIFF; ``more``: further tags of 16 bits, by number."""
    samples = values.shape[2]
    if body is None:
        planes = [values[..., [n]] for n in range(samples)] if planar else [values]
        body = b"".join(packed(plane, bits, order) for plane in planes)
    pieces = samples if planar else 1
    size = len(body) // pieces
    strips = [body[at : at + size] for at in range(0, len(body), size)]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    tags = {
        256: (WIDTH,),
        257: (HEIGHT,),
        258: (bits,) * samples,
        259: (8 if deflated else 1,),
        262: (photometric,),
    }
    tags |= {277: (samples,), 278: (HEIGHT,), 284: (2 if planar else 1,)}
    tags |= {int(name[1:]): value for name, value in more.items()}
    tags |= {273: (0,) * pieces, 279: tuple(map(len, strips))}
    start = 8 + 2 + 12 * len(tags) + 4
    extra, entries = b"", b""
    gap_size = sum(2 * len(v) + 4 for v in tags.values()) * 2
    places = np.cumsum([start + gap_size, *map(len, strips)])
    tags[273] = tuple(int(place) for place in places[:-1])
    for tag in sorted(tags):
        wide = tag in (273, 279)
        value = struct.pack(f"{order}{len(tags[tag])}{'I' if wide else 'H'}", *tags[tag])
        if len(value) > 4:
            extra += value + bytes(len(value) % 2)
            value = struct.pack(f"{order}I", start + len(extra) - len(value) - len(value) % 2)
        entries += struct.pack(f"{order}HHI", tag, 4 if wide else 3, len(tags[tag]))
        entries += value.ljust(4, b"\0")
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return header + directory + extra.ljust(gap_size, b"\0") + b"".join(strips)
