"""The options of runs on several machines, by Ray Data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from blip2cli.errors import OptionError, option
from blip2cli.options.declare import CLUSTER, OptionGroup, declare

_cluster = partial(declare, panel=CLUSTER, shapes_rows=False, about_images=True)
_ACTORS = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def parse_actors(text: str) -> tuple[int, int]:
    """``4`` or ``2-16``: fewest and most. Raises ``OptionError``."""
    found = _ACTORS.fullmatch(text)
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= fewest <= most:
        raise OptionError(
            "ray_actors", f"{option('ray_actors')} {text!r} is no number of actors", "write 4, 2-16"
        )
    return fewest, most


@dataclass(frozen=True)
class RayOptions(OptionGroup):
    """Whether a Ray cluster computes, which one, and how much of it."""

    ray: bool = _cluster(
        False,
        "Compute with Ray Data: actors decode images and run the model, rows come back here, in "
        "order. Without a cluster one is started on this machine.",
    )
    ray_address: str | None = _cluster(
        None,
        f"The cluster, with {option('ray')}: auto, or HOST:PORT of its head node.",
        metavar="ADDRESS",
        default_help="RAY_ADDRESS, or one that runs on this machine, or a new one",
        offers=("auto",),
    )
    ray_actors: tuple[int, int] | None = _cluster(
        None,
        "Actors, each with a model: a number, or the fewest and the most, such as 2-16.",
        metavar="N|MIN-MAX",
        parse=parse_actors,
        default_help="as many as the cluster has room for",
    )
    ray_cpus: int = _cluster(
        1, "Processors of an actor; without a GPU the threads of the model.", metavar="N", minimum=1
    )
    ray_gpus: float | None = _cluster(
        None,
        "GPUs of an actor; a fraction shares one.",
        metavar="N",
        minimum=0,
        default_help="1 where the cluster has any",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ray_address", "ray_actors", "ray_gpus"):
            if not self.ray and getattr(self, name) is not None:
                raise OptionError(
                    name, f"{option(name)} is about {option('ray')}", f"give {option('ray')}, too"
                )
        if self.ray_address is not None and self.ray_address.startswith("ray://"):
            raise OptionError(
                "ray_address",
                f"{option('ray_address')} {self.ray_address!r} is that of a Ray Client server",
                "run the command on a node of the cluster, or by 'ray job submit', and give auto",
            )
