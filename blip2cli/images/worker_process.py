"""What runs inside a worker: decodes the batches that it is sent, until the main process is gone.

Started by ``worker_pool.Worker`` as a fresh interpreter with one socket. Over it come the
``ImageLoader``, then batches of references; back go an empty message when it is ready, then one
batch of arrays for each.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from PIL import Image

from blip2cli.images.load_image import ImageLoader
from blip2cli.images.pillow_blocks import reuse_blocks
from blip2cli.images.remote_reads import ReadThreads
from blip2cli.sources.base import ImageRef


def main(descriptor: int) -> NoReturn:
    """Serve the socket ``descriptor``."""
    try:
        # The main process decides what is still finished when a signal comes to all of them.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # Whoever started us may have ignored or blocked it, and both are inherited.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        reuse_blocks()
        # Pillow imports its readers at the first image, whose time that would count against.
        Image.init()
        with socket.socket(fileno=descriptor) as connection:
            reader, writer = connection.makefile("rb"), connection.makefile("wb")
            image_loader: ImageLoader = pickle.load(reader)
            requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
            threads = ReadThreads()

            def receive(refs: list[ImageRef]) -> None:
                requests.put([threads.start(ref) if ref.remote else ref for ref in refs])

            receiver = threading.Thread(
                target=_receive, args=(reader, receive), name="requests", daemon=True
            )
            receiver.start()
            _send(writer, None)
            while True:
                _send(writer, image_loader.load_batch(requests.get()))
    finally:
        os._exit(1)


def _receive(reader: BinaryIO, put: Callable[[Any], None]) -> None:
    """Take in requests; ends the process with the connection, whatever it is doing."""
    try:
        while True:
            put(pickle.load(reader))
    finally:
        os._exit(0)


def _send(writer: BinaryIO, value: object) -> None:
    pickle.dump(value, writer, 5)  # arrays pass without a copy
    writer.flush()
