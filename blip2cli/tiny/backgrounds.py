"""Backgrounds of a named colour: plain and textured, float32 RGB arrays of 0 to 255."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from blip2cli.tiny.kinds import COLORS

Array = NDArray[np.float32]
Texture = Callable[[np.random.Generator, int, int], Array]


def named_color(rng: np.random.Generator, name: str) -> Array:
    """A shade that goes by ``name``: float32 [3], between two of its anchors, slightly shaken."""
    anchors = np.asarray(COLORS[name], np.float32)
    a, b = anchors[rng.integers(len(anchors), size=2)]
    mix = rng.random()
    color: Array = np.clip(a * mix + b * (1 - mix) + rng.normal(0, 4, 3), 0, 255).astype(np.float32)
    return color


def _plain(rng: np.random.Generator, height: int, width: int) -> Array:
    return np.zeros((1, 1), np.float32)


def _axes(rng: np.random.Generator, height: int, width: int) -> Array:
    """A ramp in a random direction, in pixels: float32 [height, width]."""
    angle = rng.random() * 2 * np.pi
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    x = np.arange(width, dtype=np.float32)[None, :] * np.float32(np.cos(angle))
    ramp: Array = y + x
    return ramp


def _gradient(rng: np.random.Generator, height: int, width: int) -> Array:
    ramp = _axes(rng, height, width)
    field: Array = (ramp - ramp.min()) / max(float(np.ptp(ramp)), 1.0) * 2 - 1
    return field


def _stripes(rng: np.random.Generator, height: int, width: int) -> Array:
    period = max(4.0, rng.uniform(0.04, 0.3) * min(height, width))
    wave = np.sin(_axes(rng, height, width) * np.float32(2 * np.pi / period))
    field: Array = np.sign(wave) if rng.random() < 0.5 else wave
    return field


def _checks(rng: np.random.Generator, height: int, width: int) -> Array:
    side = max(3, int(rng.uniform(0.04, 0.25) * min(height, width)))
    y = (np.arange(height) // side)[:, None]
    x = (np.arange(width) // side)[None, :]
    return ((y + x) % 2 * 2 - 1).astype(np.float32)


def _dots(rng: np.random.Generator, height: int, width: int) -> Array:
    pitch = max(5.0, rng.uniform(0.06, 0.25) * min(height, width))
    radius = pitch * rng.uniform(0.15, 0.35)
    y = (np.arange(height, dtype=np.float32) % pitch - pitch / 2)[:, None]
    x = (np.arange(width, dtype=np.float32) % pitch - pitch / 2)[None, :]
    return np.where(y * y + x * x < radius * radius, 1, -0.3).astype(np.float32)


def _clouds(rng: np.random.Generator, height: int, width: int) -> Array:
    """Coarse noise, smoothly enlarged: bilinear between random grid values."""
    cells = int(rng.integers(3, 12))
    grid = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    y, x = np.linspace(0, cells - 1e-3, height), np.linspace(0, cells - 1e-3, width)
    iy, ix = y.astype(int), x.astype(int)
    fy, fx = (y - iy).astype(np.float32)[:, None], (x - ix).astype(np.float32)[None, :]
    rows = grid[iy] * (1 - fy) + grid[iy + 1] * fy
    field: Array = rows[:, ix] * (1 - fx) + rows[:, ix + 1] * fx
    return field


def _grain(rng: np.random.Generator, height: int, width: int) -> Array:
    return rng.standard_normal((height, width), dtype=np.float32) * np.float32(0.6)


TEXTURES: dict[str, tuple[float, Texture]] = {  # name → (share of scenes, field in about -1..1)
    "plain": (0.36, _plain),
    "gradient": (0.14, _gradient),
    "stripes": (0.12, _stripes),
    "checks": (0.10, _checks),
    "dots": (0.10, _dots),
    "clouds": (0.10, _clouds),
    "grain": (0.08, _grain),
}
_NAMES = tuple(TEXTURES)
_SHARES = np.asarray([share for share, _ in TEXTURES.values()])


def draw_background(rng: np.random.Generator, name: str, height: int, width: int) -> Array:
    """A background called ``name``: float32 [height, width, 3], 0 to 255.

    The texture shades the colour by at most a fifth, so that its name stays true.
    """
    texture = _NAMES[rng.choice(len(_NAMES), p=_SHARES / _SHARES.sum())]
    field = TEXTURES[texture][1](rng, height, width)
    color = named_color(rng, name)
    amount = np.float32(rng.uniform(0.04, 0.18))
    if name == "black":  # shading black by a share would not show: lighten it a little instead
        shaded = color + (field[..., None] + 1) * amount * 60
    elif name == "white":
        shaded = color - (field[..., None] + 1) * amount * 45
    else:
        shaded = color * (1 + field[..., None] * amount)
    whole = np.broadcast_to(shaded, (height, width, 3))
    drawn: Array = np.clip(whole, 0, 255).astype(np.float32)
    return drawn
