"""The choice of who computes, by the options of a job."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blip2cli.errors import OptionError, option
from blip2cli.pipeline.compute.base import Compute
from blip2cli.pipeline.compute.devices import devices, several
from blip2cli.pipeline.compute.this_process import ThisProcess
from blip2cli.pipeline.events import Listener
from blip2cli.pipeline.settings import precision_before, threads_before

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
                ReplicaSpec(options, loader, job.task, job.checkpoint, threads),
                names,
                plan.items,
                on_event,
                job.options.limits.stall_timeout,
                _stdin(job),
            )
        options = replace(options, device=names[0])
    return ThisProcess(job, plan, options, threads, isolate_decoding, on_event)


def _ray_actors(
    job: Job[Any], plan: Plan, options: ModelOptions, threads: int | None, on_event: Listener
) -> Compute:
    """Raises OptionError for what a Ray cluster cannot be given."""
    from blip2cli.pipeline.compute.ray_actors import RayActors
    from blip2cli.pipeline.compute.replica import ReplicaSpec

    if several(options.device):
        raise OptionError(
            "device",
            f"{option('device')} names several devices, and Ray gives each actor its own",
            f"leave it out; {option('ray_actors')} says how many there are",
        )
    model, loader = options.model, job.options.loader
    paths = list(plan.listing.places) if plan.listing is not None else []
    if os.path.isdir(model):  # where an actor runs, the current folder is another one
        model = os.path.abspath(model)
        paths.append(model)
    if loader.workers is None:  # an image that crashes the decoder must not end the actor
        loader = replace(loader, workers=1)
    return RayActors(
        # The checkpoint is found where the actor is: the hub's cache may lie elsewhere.
        ReplicaSpec(replace(options, model=model), loader, job.task, None, threads),
        job.options.ray,
        plan.items,
        paths,
        on_event,
        job.options.limits.stall_timeout,
        _stdin(job),
    )


def _stdin(job: Job[Any]) -> Any:
    """The file that paths come from as somebody gives them; None where there is none."""
    return job.stdin if "-" in job.options.source.sources else None
