"""The options of loading images: how they are read, checked, decoded and batched."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from blip2cli.errors import OptionError, option
from blip2cli.options.declare import MODEL, OptionGroup, declare
from blip2cli.options.values import parse_batch_size

IMAGE_TIMEOUT = 60.0  # seconds
_recorded_model = partial(declare, panel=MODEL, shapes_rows=True)
_unrecorded_model = partial(declare, panel=MODEL, shapes_rows=False)


@dataclass(frozen=True)
class LoaderOptions(OptionGroup):
    """How images are read and batched."""

    # None: by the model and the memory (``model.placement.batch_size``)
    batch_size: int | None = _unrecorded_model(
        None,
        "Images a batch; auto: by the model and the memory.",
        metavar="N",
        minimum=1,
        parse=parse_batch_size,
        default_help="auto",
        about_images=False,
        brief=True,
        offers=("auto",),
    )
    # Processes that decode; None: by the cores there are
    workers: int | None = _unrecorded_model(
        None,
        "Processes that read images; 0 reads in this one.",
        metavar="N",
        minimum=0,
        default_help="by cores, where images are waited for",
        about_images=False,
    )
    # None: IMAGE_TIMEOUT wherever a worker decodes; only another process can be ended in the middle
    image_timeout: float | None = _unrecorded_model(
        None,
        "Seconds one image may take to be read and decoded; slower ones fail. Given, worker "
        "processes decode from the first image on; inf: no limit.",
        metavar="SECONDS",
        default_help=f"{IMAGE_TIMEOUT:g}, where worker processes decode",
        about_images=True,
    )
    fast_decode: bool = _recorded_model(
        False,
        "Decode JPEGs no larger than the model needs: quicker for large photographs, and "
        "pixels differ a little.",
        about_images=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_timeout is None:
            return
        if not self.image_timeout > 0:
            raise OptionError(
                "image_timeout",
                f"{option('image_timeout')} takes a positive number of seconds, not "
                f"{self.image_timeout}",
            )
        if self.workers == 0:
            raise OptionError(
                "image_timeout",
                f"{option('image_timeout')} needs worker processes, since only another process "
                "can be ended in the middle of an image",
                f"leave out {option('workers')} 0, or give {option('workers')} 1",
            )
