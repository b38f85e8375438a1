"""The images of a source as the items of a job: listed, resumed, read in batches."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

from blip2cli.errors import OptionError, option
from blip2cli.options import SourceOptions
from blip2cli.pipeline.compute.devices import check_devices
from blip2cli.pipeline.compute.threads import MAX_DECODING_THREADS
from blip2cli.pipeline.dealt_with import DealtWith, left_of, left_of_blocks
from blip2cli.pipeline.events import Listener
from blip2cli.pipeline.out_of_memory import BatchHalving
from blip2cli.pipeline.output import check_carried
from blip2cli.pipeline.plan import PassedOver, Plan
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.pipeline.settings import check_resumed
from blip2cli.pipeline.unchanged import list_digest, unchanged_plan, walked_plan
from blip2cli.sinks import IDENTITY, check_whole, read_output
from blip2cli.sources import ImageRef, Listing, open_sources

if TYPE_CHECKING:
    from blip2cli.images.batch_stream import BatchStream, LoadedBatch
    from blip2cli.images.preprocess import PixelSpec
    from blip2cli.model.wrapper import Blip2
    from blip2cli.pipeline.job import Job
    from blip2cli.sources.readers.stdin import PathStream
    from blip2cli.tasks.base import Task

_LISTED_FIRST = 256  # the number of a source with fewer images is known before the run starts


@dataclass(frozen=True)
class ImageItems:
    """The images of the job's ``SourceOptions``."""

    unit = "image"
    name_column = "file_name"
    identity = IDENTITY
    resumable = True

    @property
    def settings(self) -> dict[str, object]:
        """None: an image shapes no other row than its own."""
        return {}

    def check(self, job: Job[Task]) -> None:
        """Raise ``OptionError`` for options that contradict one another."""
        output = job.options.output
        if output.retry_errors and output.errors == "inline":
            raise OptionError(
                "retry_errors",
                f"{option('retry_errors')} reads the file of failed images, which "
                f"{option('errors')} inline does without",
                "leave one of the two out",
            )
        check_devices(job.options.model.device)
        check_carried(job.task, job.options)

    def plan(self, job: Job[Task]) -> Plan:
        """Read the output that is to be resumed, and list the first images."""
        done = unchanged_plan(job) or walked_plan(job)
        if done is not None:
            return done
        task, options = job.task, job.options
        output, source, stdin = options.output, options.source, job.stdin
        resumed = read_output(output, task.row_count)
        if task.only is not None:
            stdin = _check_names(task.only, source, stdin)
        listing = Listing.open(source, stdin)
        if resumed is not None:
            listing = listing.widened(resumed.columns)
            check_resumed(job, resumed, listing)
            check_whole(resumed.paths.final, resumed.rows)
        digest = list_digest(job, listing)
        passed_over = PassedOver()
        dealt_with = DealtWith(resumed, output.retry_errors)
        written = resumed.written if resumed is not None and source.check_content else None
        if dealt_with.many and task.only is None and "-" not in source.sources:
            blocks = listing.blocks(passed_over.others)
            refs = left_of_blocks(blocks, dealt_with, passed_over, written)
        else:
            refs = listing.refs(passed_over.others)
            if task.only is not None or resumed is not None:
                refs = left_of(refs, task.only, dealt_with, passed_over, written)
        paths = _path_stream(listing) if "-" in source.sources else None
        first, ended = _first(refs, paths)
        if not first and not passed_over.already and source.shard is None:
            raise OptionError(
                None,
                f"None of the images that {option('limit')}, {option('include')} and "
                f"{option('exclude')} leave has a question in {option('questions')}",
                "loosen them",
            )
        noted = len(resumed.failures.failed) if resumed is not None and resumed.failures else 0
        plan = Plan(
            chain(first if paths is None else paths.hold(first), refs),
            tuple(ref.file_name for ref in first),
            len(first) if ended else None,
            passed_over,
            resumed,
            listing,
            failed_before=resumed.rows.failed + (0 if output.retry_errors else noted)
            if resumed is not None
            else 0,
            retried=noted if output.retry_errors else 0,
            list_digest=digest,
            stdin=paths,
        )
        if job.count_all and plan.total is None and task.only is None and "-" not in source.sources:
            plan.counter = threading.Thread(target=_count, args=(plan, source), daemon=True)
        return plan

    def read(
        self,
        job: Job[Task],
        plan: Plan,
        spec: PixelSpec,
        *,
        prefetch: bool,
        isolate_decoding: bool,
    ) -> BatchStream:
        """Decode the images of ``plan`` to what ``spec`` says."""
        from blip2cli.images.batch_stream import BatchStream

        options = job.options.loader
        if options.workers is None and isolate_decoding:
            options, prefetch = replace(options, workers=1), False
        # Paths on stdin come when they come, and who gives them may wait for the rows.
        prefetch = prefetch and "-" not in job.options.source.sources
        return BatchStream(plan.items, spec, options, prefetch)

    def fit(self, job: Job[Task], batches: BatchStream, model: Blip2) -> int:
        """Set the batch size, and who decodes and sends pixels to a GPU."""
        from blip2cli.model.placement.batch_size import auto_batch_size, batch_threads

        if job.options.loader.batch_size is None:
            batches.set_batch_size(auto_batch_size(model))
        # Who gives paths on stdin may wait for the rows of one before giving the next.
        if "-" in job.options.source.sources:
            return 1
        count = batch_threads(model)
        if 1 < count <= MAX_DECODING_THREADS:
            batches.share_decoding()
        if model.device.type == "cuda":
            from blip2cli.model.vision.upload import Upload
            from blip2cli.pipeline.compute.send import send

            batches.hand_over(partial(send, Upload(model.device)))
        return count

    def processor(
        self, task: Task, model: Blip2, on_event: Listener
    ) -> Callable[[LoadedBatch], ProcessedBatch]:
        """The task, in smaller batches where memory runs out."""
        return partial(BatchHalving(task, on_event).process, model)


def _path_stream(listing: Listing) -> PathStream | None:
    from blip2cli.sources.readers.stdin import path_stream

    return path_stream(listing.sources)


def _first(refs: Iterator[ImageRef], paths: PathStream | None) -> tuple[tuple[ImageRef, ...], bool]:
    """The first images, and whether these are all; of paths on stdin those that are there."""
    first: list[ImageRef] = []
    for ref in refs:
        first.append(ref)
        if len(first) == _LISTED_FIRST or (paths is not None and not paths.comes()):
            return tuple(first), False
    return tuple(first), True


def _check_names(
    names: Collection[str], source: SourceOptions, stdin: BinaryIO | None
) -> BinaryIO | None:
    """Raise ``OptionError`` for a name that the source does not hold; returns stdin, rewound.

    The listing is read twice, so paths that come through stdin have to be held in memory.
    """
    from blip2cli.tasks.questions import check_names  # needed with questions of single images only

    paths = stdin.read() if stdin is not None and "-" in source.sources else b""
    everything = replace(source, include=(), exclude=(), limit=None, shard=None)
    check_names(names, (ref.file_name for ref in open_sources(everything, io.BytesIO(paths))))
    return io.BytesIO(paths)


def _count(plan: Plan, source: SourceOptions) -> None:
    """Find out the total, in a thread of its own.

    Listing is quick beside the model, but not so quick that a run should wait for it.
    """
    count = sum(1 for _ in open_sources(source))
    plan.total = max(0, count - plan.passed_over.already)
