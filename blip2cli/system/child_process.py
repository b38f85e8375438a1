"""Child processes: fresh interpreters with one socket pair to this process, nothing else shared.

``fork`` is out: this process has threads (BLAS, tokenizers, a progress bar, CUDA), and a lock held
by another thread at that moment is held for ever in the child. The ways of ``multiprocessing`` and
of torch's ``DataLoader`` leave named semaphores and sockets in ``/dev/shm`` and ``TMPDIR`` when all
processes are killed, and do not work where these cannot be written; and they start interpreters
that import what lies in the current folder. Here nothing has a name, and a child imports from where
this process does.

Children ignore the signals that end a run, because this process decides what is still finished,
and end by themselves when it is gone, however it went. They write nothing to the terminal.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import spawn
from pathlib import Path
from typing import Any, BinaryIO

_PACKAGES = Path(__file__).parents[2]  # the folder of ours
_LOOK_AGAIN = 1  # seconds until a child that takes nothing in is looked at
_TIMEVAL = struct.pack("ll", _LOOK_AGAIN, 0)  # the same, as the kernel takes it
_SECONDS_TO_END = 5.0  # seconds for a killed process to go; one may hang in the kernel
# A child first of all ignores the signals that end a run (1, 2 and 15), which a terminal sends to
# all processes, and asks to be killed when the thread that started it ends (prctl(2),
# PR_SET_PDEATHSIG): even in the middle of an import or of a call into a library, which a closed
# connection would not interrupt.
_FIRST = "import signal; [signal.signal(number, signal.SIG_IGN) for number in (1, 2, 15)]; "
if sys.platform == "linux":
    _FIRST += "import ctypes; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "


def command(main: str, descriptor: int) -> list[str | bytes]:
    """The command line of a child: ``main``, as ``module:function``, serves the socket
    ``descriptor``.

    ``-P`` and a full path: neither the interpreter nor a module comes from the current folder.
    The names of files decode as they do here.
    """
    # The empty name is the current folder, where an interactive interpreter looks for modules.
    path = [folder for folder in sys.path if isinstance(folder, str) and folder]
    module, _, function = main.partition(":")
    code = (
        f"{_FIRST}import sys; sys.path[:] = {[*path, str(_PACKAGES)]!a}; "
        f"from {module} import {function}; {function}({descriptor})"
    )
    return [spawn.get_executable(), "-P", "-X", f"utf8={sys.flags.utf8_mode}", "-c", code]


def environment(threads: int) -> dict[str, str]:
    """The environment of a child: this process's, with ``threads`` threads for each library."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    # ``PYTHONPATH`` may name the current folder, by an empty element; ``command`` gives the path.
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return inherited | dict.fromkeys(names, str(threads))


class ChildProcess:
    """A child that runs ``main``, and the thread that receives from it.

    ``receive`` is called in that thread with what the child writes, and reads until an exception
    comes; after that the process is ended, and ``on_end`` called. Libraries have ``threads``
    threads in it. Raises OSError, or RuntimeError, when it cannot be started.
    """

    def __init__(
        self,
        main: str,
        receive: Callable[[BinaryIO], None],
        on_end: Callable[[], None],
        threads: int = 1,
    ) -> None:
        self._receive = receive
        self._on_end = on_end
        self._socket, theirs = socket.socketpair()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command(main, theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
                    env=environment(threads),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
        except BaseException:
            self._socket.close()
            raise
        try:
            self._thread = threading.Thread(target=self._serve, name="worker", daemon=True)
            self._thread.start()
        except RuntimeError:  # there can be no further thread
            self._process.kill()
            self._process.wait()
            self._socket.close()
            raise

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def returncode(self) -> int:
        """How it ended, once ``on_end`` was called; negative: by this signal."""
        return self._process.returncode

    def send(self, value: object) -> None:
        """Send a value; as ``send_data``."""
        self.send_data(pickle.dumps(value, 5))

    def send_data(self, data: bytes) -> None:
        """Send a pickled value: wait until the child has taken it in; nothing when that ended.

        One that was stopped is woken.
        """
        left = memoryview(data)
        with contextlib.suppress(OSError):
            while left:
                try:
                    left = left[self._socket.send(left) :]
                except BlockingIOError:  # it has taken nothing for ``_LOOK_AGAIN``
                    self.wake()

    def kill(self) -> None:
        """End the process at once; ``on_end`` is still called."""
        self._process.kill()

    def stop(self) -> None:
        """End the process at once, and receive nothing more."""
        self._process.kill()
        with contextlib.suppress(OSError):  # it is closed
            self._socket.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Wait until the process is gone."""
        self._thread.join(_SECONDS_TO_END)

    def wake(self) -> None:
        """Let the process go on if it alone was stopped: nobody else would."""
        with contextlib.suppress(OSError):  # it has ended
            stopped = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self._process.pid, stopped) is not None:
                self._process.send_signal(signal.SIGCONT)

    def _serve(self) -> None:
        try:
            with self._socket.makefile("rb") as reader:
                self._receive(reader)
        except Exception:  # noqa: BLE001 - half a message is the end of the process as well
            self._process.kill()
        self._process.wait()
        self._socket.close()
        self._on_end()


def end_with_connection(reader: BinaryIO, put: Callable[[Any], None]) -> None:
    """In a thread of a child: take in values; ends the process with the connection, whatever it is
    doing."""
    try:
        while True:
            put(pickle.load(reader))
    finally:
        os._exit(0)


def send(writer: BinaryIO, value: object) -> None:
    """In a child: send a value."""
    pickle.dump(value, writer, 5)  # arrays pass without a copy
    writer.flush()
