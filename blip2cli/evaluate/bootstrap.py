"""95 % intervals by the bootstrap over images, not rows.

Several questions of one image share what makes it hard, so images are drawn, each with all its
rows. Every figure is a function of sums over images; what was counted over all images beforehand,
such as CIDEr's document frequencies, stays as it is.
"""

from __future__ import annotations

import numpy as np

from blip2cli.evaluate.key_index import Numbers
from blip2cli.evaluate.statistics import Statistics

RESAMPLES = 1000
_SEED = 0
_QUANTILES = (0.025, 0.975)


def sums_by_image(values: Numbers, images: Numbers) -> Numbers:
    """Sums of the rows of each image, ``[rows, width]`` → float64 ``[images, width]``."""
    _, codes = np.unique(images, return_inverse=True)
    count = int(codes.max()) + 1 if len(codes) else 0
    return np.stack(
        [np.bincount(codes, values[:, i], count) for i in range(values.shape[1])], axis=1
    )


def resampled_sums(by_image: Numbers, resamples: int = RESAMPLES) -> Numbers:
    """Sums over images drawn with replacement, ``[images, width]`` → ``[resamples, width]``.

    The draws depend on the number of images only, so two outputs about the same images meet the
    same ones.
    """
    source = np.random.default_rng(_SEED)
    count = len(by_image)
    columns = np.ascontiguousarray(by_image.T)
    found = np.empty((resamples, len(columns)))
    for number in range(resamples):
        drawn = source.integers(0, count, count, dtype=np.int32)
        weights = np.bincount(drawn, minlength=count).astype(float)
        # Without BLAS, whose sums depend on the number of its threads.
        found[number] = np.einsum("ij,j->i", columns, weights)
    return found


def interval(resampled: Numbers) -> Numbers:
    """The 2.5 and 97.5 percentiles over the first axis, ``[2, ...]``."""
    bounds: Numbers = np.quantile(resampled, _QUANTILES, axis=0)
    return bounds


def figures_with_intervals(
    several: list[Statistics], images: Numbers
) -> list[tuple[str, float, float, float]]:
    """Name, figure and its interval for each figure; all from the same draws."""
    widths = np.cumsum([one.values.shape[1] for one in several])[:-1]
    by_image = sums_by_image(np.concatenate([one.values for one in several], axis=1), images)
    drawn = np.split(resampled_sums(by_image), widths, axis=1)
    total = np.split(by_image.sum(axis=0), widths)
    found = []
    for one, sums, resampled in zip(several, total, drawn, strict=True):
        low, high = interval(one.figures(resampled))
        figures = one.figures(sums)
        rows = zip(one.names, figures.tolist(), low.tolist(), high.tolist(), strict=True)
        found += list(rows)
    return found


def paired_differences(
    first: list[Statistics], second: list[Statistics], images: Numbers
) -> list[tuple[str, float, float, float]]:
    """Name, difference (second minus first) and its interval; rows are about the same references.

    Both are drawn together, so what makes an image hard for both falls out.
    """
    found = []
    for one, other in zip(first, second, strict=True):
        width = one.values.shape[1]
        both = np.concatenate([one.values, other.values], axis=1)
        by_image = sums_by_image(both, images)
        drawn, total = resampled_sums(by_image), by_image.sum(axis=0)
        low, high = interval(other.figures(drawn[:, width:]) - one.figures(drawn[:, :width]))
        figures = other.figures(total[width:]) - one.figures(total[:width])
        found += list(zip(one.names, figures.tolist(), low.tolist(), high.tolist(), strict=True))
    return found
