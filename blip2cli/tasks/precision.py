"""The lowest confidence that labels show to be enough for a wanted precision.

Labels are looked at from the most confident answer down. At each step the question is whether the
precision of all answers so far is what is wanted: whether the lower end of its 95 % interval by
Clopper and Pearson (1934) meets it. The walk ends where it does not, so each step is only taken
after those before it, and all of them together err in at most one of forty draws of labels (fixed
sequence testing: Angelopoulos et al., arXiv 2110.01052, section 3).

There are two walks, which err in one of twenty together. One begins where half of the mistakes that
the precision allows are still borne, a number that depends on nothing but the precision: with one
answer nothing can be shown. The other begins at half of the labels, and is not stopped by a
few wrong answers among the most confident ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from blip2cli.errors import OptionError, option

_CERTAINTY = 0.975  # one-sided, of the 95 % interval
_SECOND_START = 0.5  # of the labels
_NOTHING = 1e-17  # less than rounding changes
_Z = 1.96  # that of the normal distribution, where a number of labels is estimated


def lowest_confidence(
    lines: Sequence[tuple[float, int, float]], precision: float, design_effect: float, path: str
) -> float:
    """The confidence from which on answers have ``precision``.

    ``lines``: confidence, answers at or above it, right ones among them, from the most confident
    down. ``design_effect``: how many labels say as much as one that depends on no other (several
    of one image do not). Raises OptionError, saying how many labels are missing.
    """
    found = reached(lines, precision, design_effect)
    if found is not None:
        return found[0]
    labels = lines[-1][1] if lines else 0
    problem = (
        f"{option('min_precision')} {precision:g}: {path}, of {labels} labels, does not show a "
        "confidence above which that share of answers is right"
    )
    more = labels_needed(lines, precision, design_effect)
    if more is None:
        best = max((right / count for _, count, right in lines if count >= 20), default=0.0)
        why = (
            f"the best share of its most confident answers is {best:.3f}"
            if best <= precision
            else "too many of its most confident answers are wrong"
        )
        raise OptionError(
            "min_precision",
            f"{problem}; more labels would not do, as {why}",
            "ask for less, or take a better model",
        )
    raise OptionError(
        "min_precision", problem, f"label about {max(1, more - labels)} more rows, or ask for less"
    )


def reached(
    lines: Sequence[tuple[float, int, float]], precision: float, design_effect: float = 1.0
) -> tuple[float, int, float] | None:
    """The last line of the walk that comes further; None where both end before a first step."""
    labels = lines[-1][1] if lines else 0
    starts = {first_step(precision) * design_effect, labels * _SECOND_START}
    ends = [_walk(lines, start, precision, design_effect) for start in starts]
    return max((end for end in ends if end is not None), key=lambda end: end[1], default=None)


def _walk(
    lines: Sequence[tuple[float, int, float]], start: float, precision: float, effect: float
) -> tuple[float, int, float] | None:
    """The last line that shows the precision, like all before it from ``start`` answers on."""
    last = None
    for line in [line for line in lines if line[1] >= start] or lines[-1:]:
        _, count, right = line
        if not shown(count / effect, (count - right) / effect, precision):
            break
        last = line
    return last


def shown(count: float, wrong: float, precision: float) -> bool:
    """Whether the 95 % interval of ``wrong`` of ``count`` answers lies above a precision.

    So few or fewer would be wrong in at most one of forty draws if it were just missed. Fractions
    are rounded to the careful side.
    """
    n, f = math.floor(count + 1e-9), math.ceil(wrong - 1e-9)
    if f >= n or n * (1 - precision) <= f:
        return False
    ways = math.lgamma(n + 1) - math.lgamma(f + 1) - math.lgamma(n - f + 1)
    term = math.exp(ways + f * math.log1p(-precision) + (n - f) * math.log(precision))
    tail = 0.0
    # From the largest term down: of the others, which are most, none counts.
    for i in range(f, -1, -1):
        tail += term
        if term <= tail * _NOTHING:
            break
        term *= i * precision / ((n - i + 1) * (1 - precision))
    return tail <= 1 - _CERTAINTY


def first_step(precision: float) -> int:
    """The fewest answers of which half of the mistakes that are allowed may be made."""
    allowed = (1 - precision) / 2
    wrong = 0
    while True:
        low, high = math.ceil(wrong / allowed), math.ceil((wrong + 1) / allowed) - 1
        if shown(high, wrong, precision):
            while low < high:  # the smallest number with these mistakes that shows it
                middle = (low + high) // 2
                low, high = (low, middle) if shown(middle, wrong, precision) else (middle + 1, high)
            return low
        wrong += 1


def labels_needed(
    lines: Sequence[tuple[float, int, float]], precision: float, design_effect: float
) -> int | None:
    """About how many labels would show it, if answers are as good as these; None: no number.

    With more labels the one walk begins at a more confident answer, and the other at the same one.
    """
    labels = lines[-1][1] if lines else 0
    least = math.log(1 - _CERTAINTY) / math.log(precision)
    if not lines:
        return math.ceil(first_step(precision))
    needed = []
    first = first_step(precision) * design_effect
    begins = [line for line in lines if line[1] < first]
    begins += [line for line in lines if line[1] >= labels * _SECOND_START][:1]
    for _, count, right in begins:
        spare = right / count - precision
        if count < 20 or spare <= 0:
            continue
        alike = max(least, _Z**2 * precision * (1 - precision) / spare**2, first_step(precision))
        needed.append(math.ceil(alike * design_effect * labels / count))
    if labels < 20:
        return math.ceil(first_step(precision) * design_effect)
    return min(needed, default=None)
