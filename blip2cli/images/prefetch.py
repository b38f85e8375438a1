"""A thread that reads and decodes the next images while the main one does something else.

Importing torch and loading the weights keep one core busy for seconds, and so does the model
later. Pillow lets go of the interpreter while it decodes and resizes, so a thread beside them
costs them little, and nothing has to be started or sent. The thread is ahead by a bounded number
of images and of bytes.

Where a small model runs in as many threads as there are cores, one more is one too many: each
takes the cores' caches from the others. There the threads that run the model decode as well, and
this one only reads (``only_read``).
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

from blip2cli.images.decode import WarningsIgnored
from blip2cli.images.load_image import Images, Picture, Undecoded
from blip2cli.sources.base import ImageRef
from blip2cli.sources.open_file_cache import let_go
from blip2cli.system.memory import memory

MOST_IMAGES = 1024
MOST_BYTES = 64 << 20  # of pixels (446 images of 224 x 224) or of files
SHARE = 16  # and no more than this part of the memory that is free at the start
# Seconds a thread may keep the interpreter while another waits. By default 5 ms, which an image
# would wait for half a dozen times (each read, each step of Pillow's), while torch is imported.
SWITCH = 5e-4


class Ahead:
    """The images of ``refs``, in order, decoded in a thread that starts at once.

    Until ``end`` has returned, ``refs`` belong to the thread. An exception that they raise ends
    the images and is kept as ``error``.
    """

    def __init__(self, refs: Iterator[ImageRef], images: Images) -> None:
        self.error: BaseException | None = None
        self._refs = refs
        self._images = images
        self._ready: deque[Picture | Undecoded] = deque()
        self._bytes = 0  # in ``_ready``
        available = memory().available
        self._most = MOST_BYTES if available is None else min(MOST_BYTES, available // SHARE)
        self._wanted = 0  # images the main thread waits for, however many they are
        self._decodes = True
        self._decoded = 0
        self._spent = 0.0  # seconds of the processor for ``_decoded``
        self._stopped = False
        self._done = False
        self._changed = threading.Condition()
        self._ignored = WarningsIgnored()
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH, self._interval))
        self._thread = threading.Thread(target=self._work, name="decoding ahead", daemon=True)
        self._thread.start()

    @property
    def pace(self) -> float:
        """Seconds of the processor that loading an image took so far; infinite at first."""
        return self._spent / self._decoded if self._decoded else math.inf

    def only_read(self) -> None:
        """Leave the decoding of further images to who takes them."""
        self._decodes = False

    def take(self, count: int) -> list[Picture | Undecoded]:
        """The next ``count`` images, waited for; fewer when there are no more.

        Those that are not decoded can be, in any thread.
        """
        self._settle()
        with self._changed:
            self._wanted = count
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._done or len(self._ready) >= count)
            self._wanted = 0
            taken = [self._ready.popleft() for _ in range(min(count, len(self._ready)))]
            self._bytes -= sum(_size(each) for each in taken)
            self._changed.notify_all()
        return [self._in_main(each) for each in taken]

    def _in_main(self, each: Picture | Undecoded) -> Picture | Undecoded:
        if isinstance(each, Undecoded) and each.in_main:
            return self._images.decode_in_main(each)
        return each

    def stop(self) -> None:
        """Take no further image; the one under way is finished in the background."""
        self._stopped = True
        self._settle()
        self._ignored.end()
        if self._changed.acquire(blocking=False):  # else the thread is awake
            self._changed.notify_all()
            self._changed.release()

    def end(self) -> None:
        """Stop, and wait for the image under way; what is ready can still be taken."""
        self.stop()
        self._thread.join()

    def _settle(self) -> None:
        """The main thread has nothing more to import: share the interpreter as usual."""
        sys.setswitchinterval(self._interval)

    def _work(self) -> None:
        try:
            while not self._stopped:
                ref = next(self._refs, None)
                if ref is None:
                    break
                self._put(self._load(ref))
        except BaseException as error:  # noqa: BLE001 - raised again, in the main thread
            self.error = error
        finally:
            let_go()
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def _load(self, ref: ImageRef) -> Picture | Undecoded:
        if not self._decodes:
            return self._images.read_beside(ref)
        began = time.thread_time()
        loaded = self._images.load_beside(ref)
        self._spent += time.thread_time() - began
        self._decoded += 1
        return loaded

    def _put(self, each: Picture | Undecoded) -> None:
        with self._changed:
            self._ready.append(each)
            self._bytes += _size(each)
            self._changed.notify_all()
            while not self._stopped and not self._has_room():
                self._changed.wait(1.0)  # looks again, should a stop have come unheard

    def _has_room(self) -> bool:
        if len(self._ready) < self._wanted:
            return True
        return len(self._ready) < MOST_IMAGES and self._bytes < self._most


def _size(each: Picture | Undecoded) -> int:
    if isinstance(each, Undecoded):
        return len(each.data)
    array = each[1]
    return 0 if array is None else array.nbytes
