"""A fork server for the command: a run starts in a tenth of a second instead of several.

The server process imports everything and loads the model ``tiny`` once, then forks a child for
each run, which goes through the console script's own ``main``. Torch is kept to one thread and
computes nothing before the fork, so no thread is lost in it. (``tests/torture/test_kills.py``
compares such runs with processes of their own.)

A child waits for ``go()`` before it starts, so that a tracer can be attached first.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.command import COMMAND, environment

ROOT = Path(__file__).parents[1]
TIMEOUT = 300.0  # seconds until a run counts as hanging


@dataclass(frozen=True)
class Completed:
    """Exit code and output of a run that has ended."""

    code: int  # the exit code, or minus the number of the signal that ended it
    stdout: str
    stderr: str


class Child:
    """One run of the command: a child process of this one or of the fork server."""

    def __init__(self, pid: int, reaper: Any, stdout: int, stderr: int, go: int | None) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)
        self._reaper = reaper
        self._pipes = (stdout, stderr)
        self._go = go
        self.tracer: subprocess.Popen[str] | None = None  # ends soon after it

    def go(self) -> None:
        """Let it start."""
        if self._go is not None:
            os.write(self._go, b"g")
            os.close(self._go)
            self._go = None

    def signal(self, number: int) -> None:
        """Send a signal; harmless when the run has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def ended(self, timeout: float = 0.0) -> bool:
        """Whether it has ended, or does so within ``timeout`` seconds."""
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        return bool(poller.poll(timeout * 1000))

    def wait(self, timeout: float = TIMEOUT) -> Completed:
        """Wait for its end. Its output must fit into a pipe (64 KiB)."""
        self.go()
        if not self.ended(timeout):
            self.signal(signal.SIGKILL)
            raise TimeoutError(f"the command hung for {timeout} seconds")
        code = os.waitstatus_to_exitcode(self._reaper(self.pid))
        if self.tracer is not None:
            self.tracer.communicate()
        os.close(self._descriptor)
        outputs = []
        for pipe in self._pipes:
            with open(pipe, "rb") as stream:
                outputs.append(stream.read().decode(errors="replace"))
        return Completed(code, *outputs)


class ForkServer:
    """Client of the server process: a context manager whose ``start`` returns a new ``Child``."""

    def __init__(self, stub: str | None = None) -> None:
        """``stub``: a module whose ``install()`` replaces the model; None: the model ``tiny``."""
        self._home = tempfile.TemporaryDirectory(prefix="fork-server-home-")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        env = environment(Path(self._home.name), PYTHONPATH=f"{ROOT}")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(theirs.fileno()), stub or ""],
            cwd=ROOT,
            env=env,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        if self._socket.recv(100) != b"ready":
            raise RuntimeError("the fork server did not start; see above")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()
        self._process.wait()
        self._home.cleanup()

    def start(
        self,
        arguments: Sequence[str | Path],
        folder: Path,
        constants: Mapping[str, object] | None = None,
        file_size: int | None = None,
        memory: int | None = None,
        loads_model: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> Child:
        """Fork a run in ``folder``; it waits for ``go``.

        ``constants`` are set before it starts, named as ``blip2cli.sinks.row_groups.PART_SECONDS``.
        No file may grow beyond ``file_size`` bytes: writes become short there, and then fail.
        Of address space it gets ``memory`` bytes more than it has. With ``loads_model`` it reads
        the checkpoint that its command names, and not the server's ``tiny``. ``variables`` are
        added to the environment.
        """
        order = {
            "arguments": list(map(str, arguments)),
            "folder": str(folder),
            "constants": dict(constants or {}),
            "file_size": file_size,
            "memory": memory,
            "loads_model": loads_model,
            "variables": dict(variables or {}),
        }
        pipes = [os.pipe() for _ in range(3)]
        (out, out_end), (err, err_end), (go_end, go) = pipes
        socket.send_fds(self._socket, [json.dumps(order).encode()], [out_end, err_end, go_end])
        for descriptor in (out_end, err_end, go_end):
            os.close(descriptor)
        return Child(int(self._socket.recv(100)), self._reap, out, err, go)

    def _reap(self, pid: int) -> int:
        self._socket.send(json.dumps({"reap": pid}).encode())
        return int(self._socket.recv(100))


def start_process(
    arguments: Sequence[str | Path], folder: Path, home: Path, **variables: str
) -> Child:
    """Start the real console script as a process and session of its own, at once."""
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    process = subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        cwd=folder,
        env=environment(home, PYTHONPATH=f"{ROOT}", **variables),
        stdin=subprocess.DEVNULL,
        stdout=out_end,
        stderr=err_end,
        start_new_session=True,
    )
    os.close(out_end)
    os.close(err_end)

    def reap(pid: int) -> int:
        process.returncode = 0  # so that Popen does not look for it
        return os.waitpid(pid, 0)[1]

    return Child(process.pid, reap, out, err, None)


def _serve(control: socket.socket, stub: str) -> None:
    """Loop of the server process."""
    if stub:
        importlib.import_module(stub).install()
    _import_everything(with_torch=not stub)
    model = None if stub else _load_model()
    control.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 3)
        if not message:
            return
        order = json.loads(message)
        if "reap" in order:
            control.send(b"%d" % os.waitpid(order["reap"], 0)[1])
            continue
        pid = os.fork()
        if not pid:
            control.close()
            _run(order, descriptors, model)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(b"%d" % pid)


def _import_everything(with_torch: bool) -> None:
    """Import what a run imports, as listed by a run in a child."""
    import blip2cli.cli.app

    if with_torch:
        import torch
        from PIL import Image

        torch.set_num_threads(1)
        Image.init()  # its readers of rare formats, which the first broken file would import
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "modules")
        pid = os.fork()
        if not pid:
            samples = ROOT / "sample_images"
            arguments = ["caption", samples, "--model", "tiny", "--limit", "2"]
            arguments += ["--workers", "0", "--batch-size", "2"]
            out = Path(folder, "out.parquet")
            code = blip2cli.cli.app.call([*map(str, arguments), "-q", "-o", str(out)])
            found.write_text("\n".join(sys.modules))
            os._exit(code)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) not in (0, 3):
            raise RuntimeError("the fork server's first run failed")
        for name in found.read_text().split("\n"):
            with contextlib.suppress(Exception):  # some are not made by an import
                importlib.import_module(name)


def _load_model() -> Any:
    from blip2cli.model.wrapper import Blip2
    from blip2cli.options import ModelOptions

    return Blip2.load(ModelOptions("tiny"))


def _run(order: dict[str, Any], descriptors: list[int], model: Any) -> None:
    """A child: become like a fresh process, wait for ``go``, and run."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    devnull = os.open(os.devnull, os.O_RDONLY)
    for target, descriptor in enumerate((devnull, descriptors[0], descriptors[1])):
        os.dup2(descriptor, target)
        os.close(descriptor)
    # The interpreter made the old ones for the server's own descriptors.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - until the process ends
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(order["folder"])
    os.environ.update(order["variables"])
    started = os.read(descriptors[2], 1)
    os.close(descriptors[2])
    if not started:  # the client is gone
        os._exit(1)
    for name, value in order["constants"].items():
        module, constant = name.rsplit(".", 1)
        if not hasattr(importlib.import_module(module), constant):
            raise AttributeError(f"there is no constant {name}")
        setattr(sys.modules[module], constant, value)
    if order["file_size"] is not None:
        # Python ignores SIGXFSZ, so a write that reaches the limit is short, the next one fails.
        limit = (order["file_size"], order["file_size"])
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    if order["memory"] is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = (pages * resource.getpagesize() + order["memory"],) * 2
        resource.setrlimit(resource.RLIMIT_AS, limit)
    if model is not None and not order["loads_model"]:
        sys.modules["blip2cli.model.wrapper"].Blip2.load = lambda options, checkpoint: model
    sys.argv = ["blip2cli", *order["arguments"]]
    importlib.import_module("blip2cli.cli.app").main()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
