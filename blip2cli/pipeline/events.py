"""Events of a run: values handed to a listener, which prints them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blip2cli.pipeline.stats import Stage


@dataclass(frozen=True)
class Started:
    """Everything cheap was checked; the model is about to be loaded."""

    task: str
    model: str
    total: int | None  # images in the source; None while the listing still streams
    unit: str = "image"  # what is counted: images, or texts without images


@dataclass(frozen=True)
class TookOver:
    """The lock of the output was left behind by a process that is gone."""

    holder: str  # "process 1234 on some-host"


@dataclass(frozen=True)
class OldFailures:
    """A list of failures of version 0.1 lies beside the new output."""

    path: str


@dataclass(frozen=True)
class Resumed:
    """There is an output to go on with."""

    images: int  # that have their rows
    failed: int  # that failed before and are not tried again
    retried: int  # that failed before and are
    version: str | None  # of this tool, when another one wrote the rows
    remark: str | None = None  # what is damaged in it, and run again


@dataclass(frozen=True)
class ModelReady:
    """The model is in memory."""

    name: str
    device: str
    dtype: str
    reason: str  # why this device and dtype
    seconds: float  # spent on imports and loading


@dataclass(frozen=True)
class Remark:
    """Something about the model's files that a user should know; the run goes on."""

    text: str


@dataclass(frozen=True)
class Failed:
    """One image could not be used; the run goes on."""

    file_name: str
    error_type: str
    message: str


@dataclass(frozen=True)
class Halved:
    """Memory ran out; from here on batches have at most ``batch_size`` images."""

    batch_size: int
    device: str | None = None  # on which, where there are several


@dataclass(frozen=True)
class Slower:
    """It turned out on the way that the model cannot be run in the quickest way."""

    reason: str


@dataclass(frozen=True)
class WorkerEnded:
    """The worker process of a device ended before its time; others do what it had."""

    device: str
    reason: str  # "killed by SIGKILL"
    again: bool  # it is started again


@dataclass(frozen=True)
class DeviceUsed:
    """What a device of several did in the whole run."""

    device: str
    batches: int
    images: int
    seconds: float  # that its model was loaded for


@dataclass(frozen=True)
class Progress:
    """A batch is done and its rows are safe."""

    done: int  # images with rows, so far
    failed: int
    total: int | None  # images in the source; None while the listing still streams


@dataclass(frozen=True)
class Waiting:
    """No rows have come for long."""

    stage: Stage  # "read", "model" or "write"
    what: str  # the run waits for: a worker, an image, the source; for people
    seconds: float  # since the last rows


@dataclass(frozen=True)
class Summary:
    """How a run ended. Seconds are wall-clock; the shares are parts of the time after loading."""

    task: str
    model: str
    output: str | None
    done: int  # images with rows
    failed: int
    skipped: int  # images that were left out because they have no question
    already: int  # images that were passed over because an earlier run has dealt with them
    rows: int
    seconds: float  # the whole run, loading included
    load_seconds: float
    images_per_second: float  # done images over the time after loading
    read_share: float  # waiting for images
    model_share: float
    write_share: float
    exit_code: int
    unit: str = "image"  # what is counted: images, or texts without images
    flagged: int = 0  # rows whose text says nothing or the same again, or did at first
    retried: int = 0  # rows among them whose text is good since it was decoded again
    abstained: int = 0  # rows whose guess is not sure enough to be their text
    list_seconds: float = 0.0  # until the options were checked and the first images listed
    import_seconds: float = 0.0  # importing torch and what runs the model; part of the loading
    first_seconds: float = 0.0  # from the start to the first rows that were written; 0: none
    # Files in folders that may be pictures and are not read, by suffix.
    other_files: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, object] | None = None  # of the output against references, if there are some

    def as_dict(self) -> dict[str, object]:
        """Plain JSON values, figures rounded to what their measurement is worth."""
        values = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}
        if self.metrics is None:
            del values["metrics"]
        return values


@dataclass(frozen=True)
class Finished:
    """The run is over and the output closed."""

    summary: Summary


@dataclass(frozen=True)
class Evaluated:
    """The output was compared with references after the run."""

    against: str  # their file
    metrics: dict[str, object]  # as ``Evaluation.as_dict`` has them
    lines: tuple[str, ...]  # that, for people


@dataclass(frozen=True)
class PageWritten:
    """The page of the output was written after the run."""

    path: str
    rows: int
    pictures: int
    seconds: float
    notes: tuple[str, ...]


Event = (
    Started
    | TookOver
    | OldFailures
    | Resumed
    | ModelReady
    | Remark
    | Failed
    | Halved
    | Slower
    | WorkerEnded
    | DeviceUsed
    | Progress
    | Waiting
    | Finished
    | Evaluated
    | PageWritten
)
Listener = Callable[[Event], None]
