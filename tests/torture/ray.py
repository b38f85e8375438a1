"""Actors and nodes of a Ray cluster killed at random instants, in chains.

``python -m tests.torture.ray --actors 60 --nodes 30 --seed 7`` starts nodes of one processor on
this machine, and runs with replicas that do nothing but sleep. Actors are killed with SIGKILL in
mid-run, and nodes (all but that of the run) are taken away, others join. Each run has to end with
the rows of all images in order, none lost and none doubled, and no image blamed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable

from blip2cli.pipeline.compute import ray_actors
from tests.pipeline.compute.ray_nodes import Driven, Nodes, nodes, refs
from tests.workload import Violation

IMAGES = 400
NODES = 2


def strike(cluster: Nodes, rng: random.Random, actors: int, lost: int) -> tuple[int, int]:
    """One run with kills; how many actors and nodes were killed.

    Raises ``Violation``.
    """
    driven = Driven(cluster, refs(IMAGES, "sleep 0.03"))
    killers: list[Callable[[], None]] = []
    killers += [driven.kill_actor] * min(actors, rng.randint(1, 4))
    killers += [lambda: replace_node(cluster, rng)] * min(lost, rng.randint(1, 2))
    rng.shuffle(killers)
    due = sorted(rng.sample(range(1, IMAGES // 4 - 4), len(killers)))
    hits = [0, 0]
    for number, _ in enumerate(driven):
        if due and number >= due[0]:
            due.pop(0)
            killer = killers.pop()
            try:
                killer()
            except ProcessLookupError:  # it was lost with its node
                continue
            hits[killer != driven.kill_actor] += 1
    if driven.names != [str(number) for number in range(IMAGES)] or driven.failed:
        raise Violation(f"{len(driven.names)} rows, not in order or not all; {driven.failed}")
    return hits[0], hits[1]


def replace_node(cluster: Nodes, rng: random.Random) -> None:
    """Take a node away; another one joins."""
    cluster.kill(cluster.nodes.pop(rng.randrange(len(cluster.nodes))))
    cluster.nodes.append(cluster.add())


def main() -> int:
    """Command line: kill until enough kills were survived; returns 1 when any run was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.ray")
    parser.add_argument("--actors", type=int, default=60, help="kills of actors")
    parser.add_argument("--nodes", type=int, default=30, help="kills of nodes")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    ray_actors._LOST_SECONDS = 2.0
    rng = random.Random(options.seed)
    actors = lost = runs = 0
    began = time.monotonic()
    with nodes(*[1] * NODES) as cluster:
        while actors < options.actors or lost < options.nodes:
            try:
                more = strike(cluster, rng, options.actors - actors, options.nodes - lost)
            except Violation as violation:
                print(f"run {runs + 1} of seed {options.seed}: {violation}")
                return 1
            actors, lost, runs = actors + more[0], lost + more[1], runs + 1
            seconds = time.monotonic() - began
            print(f"{runs} runs, {actors} actors, {lost} nodes, {seconds:.0f} s", flush=True)
    print(f"ray: {actors} kills of actors and {lost} of nodes survived, 0 lost, 0 doubled")
    return 0


if __name__ == "__main__":
    sys.exit(main())
