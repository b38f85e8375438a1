"""The Ray cluster of a run: joined or started, with room for actors, able to see the sources."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blip2cli.errors import OptionError, RunError, option
from blip2cli.storage.opening import is_remote
from blip2cli.system.silence_stderr import silence_stderr

if TYPE_CHECKING:
    from blip2cli.options import RayOptions

_ANSWER_SECONDS = 10.0  # for the head node to accept a connection
_LOOK_SECONDS = 60.0  # for a node to say which files it sees


@dataclass(frozen=True)
class Room:
    """What there is room for."""

    cpus: int  # of an actor
    gpus: float  # of an actor
    fewest: int  # actors
    now: int
    most: int
    nodes: frozenset[str]  # of the cluster, alive


def join(options: RayOptions) -> bool:
    """Join the cluster, or start one; whether that was needed. Raises OptionError."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # no cluster is started behind our back
    try:
        import ray
        from ray._private import worker
    except ImportError:
        raise OptionError(
            "ray",
            f"{option('ray')} needs Ray, which is not installed",
            "pip install 'blip2cli[ray]'",
        ) from None
    if ray.is_initialized():
        return False
    _check_answers(options.ray_address or os.environ.get("RAY_ADDRESS", ""))
    stop = signal.getsignal(signal.SIGTERM)  # Ray has a handler of its own
    # What matters ends up in messages of our own. That it heeds this is the first thing it says.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        with silence_stderr(), _in_a_group_of_its_own():
            ray.init(
                options.ray_address,
                include_dashboard=False if options.ray_address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise _not_joined(str(error).strip().partition("\n")[0].rstrip(".")) from None
    # Of what its nodes have to say: a lost actor is an event of ours.
    unprinted: Any = lambda *_, **__: None  # noqa: E731
    worker.print_to_stdstream = unprinted
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
    return True


@contextlib.contextmanager
def _in_a_group_of_its_own() -> Iterator[None]:
    """A signal to the group of this process, as a launcher sends it, reaches nothing that Ray
    starts meanwhile: what is under way could not be finished then."""
    from ray._private import utils

    share_fate: Any = utils.set_kill_on_parent_death_linux  # runs in each such process

    def start() -> None:
        os.setpgrp()
        share_fate()

    utils.set_kill_on_parent_death_linux = start
    try:
        yield
    finally:
        utils.set_kill_on_parent_death_linux = share_fate


def _check_answers(address: str) -> None:
    """Raise OptionError where nothing answers at HOST:PORT: Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, OverflowError):
        raise _not_joined(f"nothing answers at {address}") from None


def _not_joined(reason: str) -> OptionError:
    return OptionError(
        "ray_address",
        f"The Ray cluster cannot be joined ({reason})",
        f"check {option('ray_address')} and that 'ray status' knows it",
    )


def leave() -> None:
    """Leave the cluster; end one that was started for the run, and remove what it wrote."""
    import ray
    from ray._private import worker

    node: Any = getattr(worker, "_global_node", None)  # no public name says where logs are
    logs = node.get_session_dir_path() if node is not None and node.head else None
    ray.shutdown()
    if logs is not None:
        shutil.rmtree(logs, ignore_errors=True)


def find_room(options: RayOptions) -> Room:
    """How many actors the cluster has room for now.

    A cluster whose processors are all taken would let a run wait without a word. Raises RunError.
    """
    import ray
    from ray._private.state import available_resources_per_node

    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    free = available_resources_per_node()
    gpus = options.ray_gpus
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU") for node in alive.values()) else 0.0
    wanted = {"CPU": float(options.ray_cpus), "GPU": gpus}

    def actors(nodes: Sequence[Any]) -> int:
        return sum(
            int(min(node.get(kind, 0.0) / n + 1e-9 for kind, n in wanted.items() if n))
            for node in nodes
        )

    room = actors([free.get(node, {}) for node in alive])
    fewest, most = options.ray_actors or (max(1, room), max(1, room))
    if room < fewest:
        ever = actors(list(alive.values()))
        each = f"{options.ray_cpus} processors" + (f" and {gpus:g} GPUs" if gpus else "")
        raise RunError(
            "ray_actors",
            f"The Ray cluster has room for {room} actors of {each} now"
            + (f" ({ever} if nothing else ran there)" if ever != room else "")
            + f", not for {fewest}",
            f"wait until it is free, or give a smaller {option('ray_actors')}, "
            f"{option('ray_cpus')} or {option('ray_gpus')}",
        )
    return Room(options.ray_cpus, gpus, fewest, min(room, most), most, frozenset(alive))


def lost_actors(room: Room) -> bool:
    """Whether a node was lost, and with it an actor of this run that is not back elsewhere."""
    import ray
    from ray._private.state import actors

    if room.nodes <= {node["NodeID"] for node in ray.nodes() if node["Alive"]}:
        return False
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    return bool(actors(job_id=job, actor_state_name="RESTARTING"))


def on_this_node() -> dict[str, str]:
    """The labels that keep a task or an actor of Ray on the machine of the run."""
    import ray

    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def check_visible(paths: Sequence[str], field: str = "sources") -> None:
    """Raise OptionError about ``field`` for a local path that another node does not see."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    local = [os.path.abspath(path) for path in paths if not is_remote(path)]
    here = ray.get_runtime_context().get_node_id()
    others = [n for n in ray.nodes() if n["Alive"] and n["NodeID"] != here]
    if not local or not others:
        return
    look: Any = ray.remote(_missing)
    asked = [
        look.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(local)
        for node in others
    ]
    ray.wait(asked, num_returns=len(asked), timeout=_LOOK_SECONDS)
    for node, answer in zip(others, asked, strict=True):
        try:
            missing = ray.get(answer, timeout=0)
        except ray.exceptions.RayError:  # the node is gone, or busy: actors elsewhere do its work
            continue
        if missing:
            name = node["NodeManagerHostname"] or node["NodeManagerAddress"]
            raise OptionError(
                field,
                f"The node {name} of the Ray cluster does not see {missing[0]!r}",
                "use a folder that all nodes share, or a URL of an object store",
            )


def _missing(paths: Sequence[str]) -> list[str]:
    """Those of ``paths`` that are not there."""
    return [path for path in paths if not os.path.lexists(path)]


def given_up(why: Exception) -> RunError:
    """The end of a run that Ray cannot go on with."""
    return RunError(
        "ray",
        f"Ray Data has given up ({last_line(why)})",
        f"the rows so far are safe, go on with {option('resume')} when the cause is removed",
    )


def last_line(error: Exception) -> str:
    """What an error of Ray is about: its last line, under tracebacks of other processes."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else type(error).__name__
