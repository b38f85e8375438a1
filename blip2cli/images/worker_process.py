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
from typing import Any, NoReturn

from PIL import Image

from blip2cli.images.load_image import ImageLoader
from blip2cli.images.pillow_blocks import reuse_blocks
from blip2cli.images.remote_reads import ReadThreads
from blip2cli.sources.base import ImageRef
from blip2cli.system.child_process import end_with_connection, send


def main(descriptor: int) -> NoReturn:
    """Serve the socket ``descriptor``."""
    try:
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
                target=end_with_connection, args=(reader, receive), name="requests", daemon=True
            )
            receiver.start()
            send(writer, None)
            while True:
                send(writer, image_loader.load_batch(requests.get()))
    finally:
        os._exit(1)
