"""What runs inside a worker with a device: a replica, until the main process is gone.

Over its socket come a ``ReplicaSpec``, or whatever else ``start``s a replica, and then requests;
back go ``Ready``, and then an answer for each request, in any order. What cannot be done goes back
as the exception.
"""

from __future__ import annotations

import os
import pickle
import queue
import socket
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from blip2cli.errors import Blip2CliError
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources.base import ImageRef
from blip2cli.system.child_process import (
    end_with_connection,
    send,
)

if TYPE_CHECKING:
    from blip2cli.pipeline.compute.replica import Replica

# Batches under way in one worker: while one is computed another is decoded.
BATCHES = 2


@dataclass(frozen=True)
class Request:
    """Images whose rows are wanted."""

    number: int
    refs: Sequence[ImageRef]
    isolate: bool = False  # decode them in a process of their own


@dataclass(frozen=True)
class Answer:
    """What came of a request."""

    number: int
    result: ProcessedBatch | Exception


def main(descriptor: int) -> NoReturn:
    """Serve the socket ``descriptor``."""
    try:
        with socket.socket(fileno=descriptor) as connection:
            reader, writer = connection.makefile("rb"), connection.makefile("wb")
            spec = pickle.load(reader)
            requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
            threading.Thread(
                target=end_with_connection,
                args=(reader, requests.put),
                name="requests",
                daemon=True,
            ).start()
            try:
                replica = spec.start()
                message = replica.ready
            except Exception as error:  # noqa: BLE001 - whatever it is, the main process says it
                message = portable(error)
            send(writer, message)
            if isinstance(message, Exception):
                os._exit(1)
            answering = threading.Lock()
            for _ in range(BATCHES - 1):
                arguments = (replica, requests, writer, answering)
                threading.Thread(target=_serve, args=arguments, daemon=True).start()
            _serve(replica, requests, writer, answering)
    finally:
        os._exit(1)


def _serve(
    replica: Replica,
    requests: queue.SimpleQueue[Any],
    writer: BinaryIO,
    answering: threading.Lock,
) -> None:
    try:
        while True:
            request: Request = requests.get()
            result: ProcessedBatch | Exception
            try:
                result = replica.process(request.refs, request.isolate)
            except Exception as error:  # noqa: BLE001 - raised in the main process, in its turn
                result = portable(error)
            with answering:
                send(writer, Answer(request.number, result))
    finally:
        os._exit(1)


def portable(error: Exception) -> Exception:
    """``error`` so that another process can raise it, with its traceback as a note."""
    if not isinstance(error, Blip2CliError):
        error.add_note("In the worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - exceptions of others may hold anything
        substitute = RuntimeError(f"{type(error).__name__}: {error}")
        for note in error.__notes__:
            substitute.add_note(note)
        return substitute
    return error
