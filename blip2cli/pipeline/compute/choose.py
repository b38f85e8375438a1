"""The choice of who computes, by the options of a job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from blip2cli.errors import OptionError, option
from blip2cli.pipeline.compute.base import Compute
from blip2cli.pipeline.compute.devices import devices, several
from blip2cli.pipeline.compute.this_process import ThisProcess
from blip2cli.pipeline.events import Listener
from blip2cli.pipeline.settings import precision_before, threads_before
from blip2cli.sources import ImageRef

if TYPE_CHECKING:
    from blip2cli.options import ModelOptions
    from blip2cli.pipeline.job import Job
    from blip2cli.pipeline.plan import Plan


def who_computes(job: Job[Any], plan: Plan, isolate_decoding: bool, on_event: Listener) -> Compute:
    """Worker processes where several devices are named, this process for one.

    ``isolate_decoding`` keeps what may crash out of the process with the model. Raises ModelError
    where a device is not there.
    """
    options = precision_before(job.options.model, plan.resumed)
    threads = threads_before(plan.resumed)
    if job.options.ray.ray:
        return _ray_actors(job, plan, options, threads, on_event)
    if job.load is None and several(options.device):
        names = devices(options.device)
        if len(names) > 1:
            from blip2cli.pipeline.compute.processes import WorkerProcesses
            from blip2cli.pipeline.compute.replica import ReplicaSpec

            loader = job.options.loader
            if isolate_decoding and loader.workers is None:
                loader = replace(loader, workers=1)
            return WorkerProcesses(
                ReplicaSpec(options, loader, job.task, job.checkpoint, threads, ranker=job.ranker),
                names,
                plan.items,
                on_event,
                job.options.limits.stall_timeout,
                plan.stdin,
            )
        options = replace(options, device=names[0])
    return ThisProcess(job, plan, options, threads, isolate_decoding, on_event)


def _ray_actors(
    job: Job[Any], plan: Plan, options: ModelOptions, threads: int | None, on_event: Listener
) -> Compute:
    """Raises OptionError for what a Ray cluster cannot be given."""
    from blip2cli.model.checkpoint.ranker import RankerSpec
    from blip2cli.pipeline.compute.ray_actors import RayActors
    from blip2cli.pipeline.compute.replica import ReplicaSpec

    if several(options.device):
        raise OptionError(
            "device",
            f"{option('device')} names several devices, and Ray gives each actor its own",
            f"leave it out; {option('ray_actors')} says how many there are",
        )
    loader = job.options.loader
    items, paths = _needed_paths(job, plan)
    # Checkpoints are found where the actor is: the hub's cache may lie elsewhere.
    model = _seen_from_everywhere(options.model, paths)
    adapters = tuple(_seen_from_everywhere(name, paths) for name in options.adapter)
    offload = options.offload and os.path.abspath(options.offload)
    ranker = None
    if job.ranker is not None:
        ranker = RankerSpec(_seen_from_everywhere(job.ranker.name, paths))
    if loader.workers is None:  # an image that crashes the decoder must not end the actor
        loader = replace(loader, workers=1)
    return RayActors(
        ReplicaSpec(
            replace(options, model=model, adapter=adapters, offload=offload),
            loader,
            job.task,
            threads=threads,
            ranker=ranker,
        ),
        job.options.ray,
        items,
        paths,
        on_event,
        job.options.limits.stall_timeout,
        plan.stdin,
    )


def _seen_from_everywhere(name: str, paths: list[str]) -> str:
    """The name of a model or an adapter for actors, for whom the current folder is another one; a
    directory, perhaps with a scale behind it, joins the ``paths`` that all nodes have to see."""
    from blip2cli.model.checkpoint.embedded import EMBEDDED

    if name in EMBEDDED:
        return name
    folder, mark, scale = (name, "", "") if os.path.isdir(name) else name.rpartition("@")
    if not os.path.isdir(folder):
        return name
    paths.append(os.path.abspath(folder))
    return f"{paths[-1]}{mark}{scale}"


def _needed_paths(job: Job[Any], plan: Plan) -> tuple[Iterator[ImageRef], list[str]]:
    """The references, and local paths that whoever reads images has to see.

    Lists may name images anywhere: of those the first one says where they are.
    """
    elsewhere = job.options.source.absolute_paths
    sources = plan.listing.sources if plan.listing is not None else ()
    paths = [
        path
        for source in sources
        if not source.streamed and not (source.has_rows and elsewhere)
        for path in (source.root, *source.content_files())
    ]
    first = next(plan.items, None)
    if first is None:
        return iter(()), paths
    if type(first) is ImageRef and os.path.lexists(first.path):
        paths.append(first.path)
    return chain([first], plan.items), paths
