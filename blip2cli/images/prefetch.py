"""Prefetch thread: reads and decodes the next images while the main thread does something else.

Importing torch and loading the weights keep one core busy for seconds, and so does the model
later. Pillow releases the interpreter lock while it decodes and resizes, so a second thread costs
them little, and no process has to be started or sent anything. What is prefetched is bounded in
images and in bytes.

Where a small model runs in as many threads as there are cores, one more is one too many: each
takes the cores' caches from the others. There the batch threads decode as well, and this thread
only reads (``take``).
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

from blip2cli.images.load_image import EncodedImage, ImageLoader, ReadImage
from blip2cli.images.remote_reads import RemoteRefs
from blip2cli.sources.base import ImageRef
from blip2cli.sources.open_file_cache import close_cached
from blip2cli.system.memory import memory

PREFETCH_IMAGES = 1024
PREFETCH_BYTES = 64 << 20  # of pixels (446 images of 224 x 224) or of files
MEMORY_SHARE = 16  # and no more than this part of the memory that is free at the start
# Seconds a thread may hold the interpreter lock while another waits. By default 5 ms, which an
# image would wait for half a dozen times (each read, each step of Pillow) while torch is
# imported.
SWITCH_INTERVAL = 5e-4


def byte_limit(available: int | None) -> int:
    """How many bytes to prefetch where ``available`` bytes of memory are free (None: unknown)."""
    return PREFETCH_BYTES if available is None else min(PREFETCH_BYTES, available // MEMORY_SHARE)


class Prefetch:
    """The images of ``refs``, in order, decoded in a thread that starts at once.

    At most ``max_images`` and ``max_bytes`` (None: what the memory allows) wait to be taken, or
    one batch if that is more. Until ``end`` has returned, ``refs`` belong to the thread. An
    exception that they raise ends the images and is stored as ``error``. Warnings are to be ignored
    meanwhile (``WarningsIgnored``).
    """

    def __init__(
        self,
        refs: Iterator[ImageRef],
        image_loader: ImageLoader,
        max_images: int = PREFETCH_IMAGES,
        max_bytes: int | None = None,
    ) -> None:
        self.error: BaseException | None = None
        self._refs = refs
        self._remote: RemoteRefs | None = None  # takes from ``refs`` since the first remote one
        self._image_loader = image_loader
        self._ready: deque[tuple[ReadImage, int]] = deque()  # and their bytes
        self._bytes = 0  # in ``_ready``
        self._max_images = max_images
        self._max_bytes = byte_limit(memory().available) if max_bytes is None else max_bytes
        self._requested = 0  # images the main thread waits for, whatever the limits
        self._decodes = True
        self._decoded = 0
        self._cpu_seconds = 0.0  # for ``_decoded``
        self._stopped = False
        self._done = False
        self._changed = threading.Condition()
        self._switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_INTERVAL, self._switch_interval))
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        self._thread.start()

    def take(
        self, count: int, seconds: float = 0.0, in_main_thread: bool = True
    ) -> list[ReadImage]:
        """The next ``count`` images, waited for; fewer when there are no more, or it is stopped.

        Where loading as many takes no more than ``seconds`` of processor time, by what it took so
        far, further images are only read, and whoever takes them decodes them, in any thread. With
        ``in_main_thread`` those that only the main thread may decode are decoded now.
        """
        if self._decoded and self._cpu_seconds * count <= seconds * self._decoded:
            self._decodes = False
        # The main thread has imported everything: share the interpreter as usual.
        sys.setswitchinterval(self._switch_interval)
        with self._changed:
            self._requested = count
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._done or self._stopped or len(self._ready) >= count)
            self._requested = 0
            taken = [self._ready.popleft() for _ in range(min(count, len(self._ready)))]
            self._bytes -= sum(size for _, size in taken)
            self._changed.notify_all()
        return [
            self._image_loader.decode(image)
            if in_main_thread and isinstance(image, EncodedImage) and image.main_thread_only
            else image
            for image, _ in taken
        ]

    def stop(self) -> None:
        """Take no further image; the one under way is finished in the background."""
        self._stopped = True
        sys.setswitchinterval(self._switch_interval)
        if self._remote is not None:
            self._remote.stop()
        if self._changed.acquire(blocking=False):  # else the thread is awake
            self._changed.notify_all()
            self._changed.release()

    def end(self) -> None:
        """Stop, and wait for the image under way; what is ready can still be taken."""
        self.stop()
        self._thread.join()

    def rest(self) -> Iterator[ImageRef]:
        """The references that were not taken, after ``end``."""
        return self._refs if self._remote is None else self._remote.rest()

    def _work(self) -> None:
        refs = self._refs
        try:
            while not self._stopped and (ref := next(refs, None)) is not None:
                if ref.remote and self._remote is None:
                    refs = self._remote = RemoteRefs(ref, refs)
                    continue
                self._image_loader.current = ref.file_name
                image = self._load(ref)
                self._image_loader.current = None
                if isinstance(image, EncodedImage):
                    size = len(image.data)
                else:
                    pixels = image[1]
                    size = 0 if pixels is None else pixels.nbytes
                with self._changed:
                    self._ready.append((image, size))
                    self._bytes += size
                    self._changed.notify_all()
                    while (
                        not self._stopped
                        and len(self._ready) >= self._requested
                        and (len(self._ready) >= self._max_images or self._bytes >= self._max_bytes)
                    ):
                        self._changed.wait(1.0)  # looks again, should a notification be missed
        except BaseException as error:  # noqa: BLE001 - raised again, in the main thread
            self.error = error
        finally:
            close_cached()
            if self._stopped and self._remote is not None:
                self._remote.stop()  # it may have been made after the call of ``stop``
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def _load(self, ref: ImageRef) -> ReadImage:
        if not self._decodes:
            return self._image_loader.read(ref)
        began = time.thread_time()
        image = self._image_loader.read(ref)
        if isinstance(image, EncodedImage) and not image.main_thread_only:
            image = self._image_loader.decode(image, main_thread=False)
        self._cpu_seconds += time.thread_time() - began
        self._decoded += 1
        return image
