"""How many batches make a block of a Ray dataset."""

from __future__ import annotations

# Seconds that a block should take, at least and for each actor: Ray Data needs up to 80 ms of
# processors for a block, some 30 of them where the run is, for the blocks of all actors.
_SECONDS, _SECONDS_OF_ACTOR = 1.0, 0.03
_MOST_SECONDS = 4.0  # an interrupted run waits for the blocks under way
_MOST_IMAGES = 4096  # in a block, which is held in memory as a whole
_SHARE = 8  # of what was done, at most, goes into the blocks of all actors together


class BlockSize:
    """Batches in a block: by the seconds that batches took so far.

    At first there is one. Blocks grow with what was done, so that they stay a small part of it:
    where a run has little to do, or has nearly ended, no actor waits for what another one has.
    """

    def __init__(self) -> None:
        self.batches = 1
        self._done = 0  # batches
        self._each = 0.0  # seconds of a batch, lately

    def note(self, batches: int, seconds: float, images: int, actors: int) -> None:
        """A block of ``batches`` with ``images`` in all took ``seconds``; there are ``actors``."""
        each = seconds / batches
        self._each = (self._each + each) / 2 if self._done else each
        self._done += batches
        wanted = min(max(_SECONDS, actors * _SECONDS_OF_ACTOR), _MOST_SECONDS)
        self.batches = max(
            1,
            min(
                int(wanted / max(self._each, 1e-6)),
                self._done // (_SHARE * actors),
                _MOST_IMAGES * batches // max(images, 1),
            ),
        )
