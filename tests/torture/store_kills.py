"""Runs into an object store, killed with SIGKILL as their requests come and go, and resumed.

``python -m tests.torture.store_kills --kills 300 --seed 7`` prints how many kills were survived;
``--only s3/17`` repeats one trial with all its choices. Runs are killed before or after a request
took effect, or after a random time; ``--faults`` lets one request in twenty fail on the way as
well. The store is moto's, with ``--weed`` SeaweedFS.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from tests.drawn_source import draw_source
from tests.fork_server import Child, ForkServer
from tests.object_servers import weed
from tests.s3_server import S3, serve_s3
from tests.store_proxy import Rule, StoreProxy, proxy_of
from tests.torture.kill_series import parser_of, survive_kills
from tests.torture.stages import STUB
from tests.workload import Violation, check_finished

IMAGES = 40
PART_ROWS = 7
DEEPEST = 5  # kills before the last resume
REQUESTS = 70  # of an unbroken run, about
FAULTS = ("before", "after", "busy", "conflict")
CONSTANTS: dict[str, object] = {
    "blip2cli.sinks.failure_list.OBJECT_SYNC_SECONDS": 0.0,
    "blip2cli.sinks.row_groups.PART_SECONDS": 0.0,
    "blip2cli.sinks.row_groups.GROUP_ROWS": 4,
    "blip2cli.sinks.object_lock.CHECK_SECONDS": 0.0,
}


@dataclass(frozen=True)
class StoreTrials:
    """Trials of one command with its output in a bucket."""

    fork_server: ForkServer
    server: S3
    proxy: StoreProxy
    source: Path
    bucket: str
    faults: bool

    def start(self, name: str, *flags: str, batch_size: int = 3) -> Child:
        """Start a run with the output ``name``; it waits for ``go``."""
        command = ["caption", str(self.source), "--model", "tiny", "--workers", "0", "--quiet"]
        command += ["--max-new-tokens", "4", "--batch-size", str(batch_size)]
        command += ["-o", f"s3://{self.bucket}/{name}/", "--rows-per-part", str(PART_ROWS), *flags]
        variables = {**self.server.environment, "AWS_ENDPOINT_URL": self.proxy.url}
        return self.fork_server.start(command, self.source.parent, CONSTANTS, variables=variables)

    def objects(self, name: str) -> dict[str, bytes]:
        """The objects of an output, and those beside it; locks and settings without content."""
        filesystem = self.server.filesystem()
        found = {}
        for place in (f"{name}/", f"{name}.errors", f".{name}/"):
            for key in filesystem.find(f"{self.bucket}/{place}".rstrip("/"), refresh=True):
                own = key.partition("/")[2].replace(name, "OUT")
                known = "/lock/" in own or own.endswith("meta.json")
                own = ".OUT/lock" if "/lock/" in own else own
                found[own] = b"" if known else filesystem.cat_file(key)
        return found

    def unbroken(self) -> dict[str, bytes]:
        """What a run without a kill leaves."""
        check_finished(self.start("unbroken").wait())
        return self.objects("unbroken")

    def trial(self, expected: dict[str, bytes], seed: int, number: int) -> int:
        """One chain of kills and the resume after them; returns how many kills hit a run."""
        rng = random.Random(f"{seed}/{number}")
        name = f"trial-{number}"
        hits = 0
        for depth in range(rng.randint(1, DEEPEST)):
            flags = ("--resume",) if depth or rng.random() < 0.5 else ()
            child = self.start(name, *flags, batch_size=rng.choice((1, 2, 3, 5, 8)))
            hits += self._kill(child, rng)
            self._check_legal(name, expected)
        self.proxy.rule = self._rule(rng)
        check_finished(self.start(name, "--resume", batch_size=rng.choice((1, 3, 8))).wait())
        self.proxy.rule = lambda method, path: None
        found = self.objects(name)
        if found != expected:
            wrong = [key for key in found.keys() | expected if found.get(key) != expected.get(key)]
            raise Violation(f"at the end these are not as an unbroken run's: {sorted(wrong)}")
        return hits

    def _rule(self, rng: random.Random) -> Rule:
        own = random.Random(rng.random())
        return lambda method, path: (
            own.choice(FAULTS) if self.faults and own.random() < 0.05 else None
        )

    def _kill(self, child: Child, rng: random.Random) -> bool:
        """Let it run, and kill it at some request; whether that was before its end."""
        left, when = rng.randint(1, REQUESTS), rng.choice(("before", "after", "later"))
        later = rng.uniform(0, 0.01)
        usual, lock = self._rule(rng), threading.Lock()

        def rule(method: str, path: str) -> str | None:
            nonlocal left
            with lock:
                left -= 1
                if left:
                    return None if left < 0 else usual(method, path)
                if when == "later":
                    threading.Timer(later, child.signal, (signal.SIGKILL,)).start()
                    return None
                child.signal(signal.SIGKILL)
                return when

        self.proxy.rule = rule
        code = child.wait().code
        self.proxy.rule = lambda method, path: None
        return code == -signal.SIGKILL

    def _check_legal(self, name: str, expected: dict[str, bytes]) -> None:
        """Raise ``Violation`` for a visible object that no unbroken run puts."""
        for key, data in self.objects(name).items():
            if key.startswith("OUT/") and data != expected.get(key):
                rows = pq.read_metadata(io.BytesIO(data)).num_rows
                raise Violation(f"{key} has {rows} rows, or other bytes than an unbroken run's")


@contextlib.contextmanager
def trials_of(folder: Path, on_weed: bool, faults: bool) -> Iterator[StoreTrials]:
    """A server, a proxy before it, and a source."""
    (folder / "server").mkdir()
    serving = weed(folder / "server") if on_weed else serve_s3()
    source = draw_source(folder / "source", IMAGES)
    with serving as server, proxy_of(server.url) as proxy, ForkServer(STUB) as fork_server:
        bucket = "faults" if faults else "kills"  # moto keeps them as long as its process lives
        server.filesystem().mkdir(bucket)
        yield StoreTrials(fork_server, server, proxy, source, bucket, faults)


def main() -> int:
    """Command line: kill until enough kills were survived; returns 1 when any trial failed."""
    parser = parser_of("store_kills", kills=300)
    parser.add_argument("--weed", action="store_true", help="with SeaweedFS, not moto")
    parser.add_argument("--faults", action="store_true", help="let requests fail as well")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with (
        tempfile.TemporaryDirectory() as folder,
        trials_of(Path(folder), options.weed, options.faults) as trials,
    ):
        trial = partial(trials.trial, trials.unbroken())
        title = "kills of runs into a store"
        return survive_kills(title, options, {"s3": trial}, trials.source)


if __name__ == "__main__":
    sys.exit(main())
