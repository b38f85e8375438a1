"""While the model loads: images are read already, and whatever ends the loading ends that at once.

Each run is a process of its own, in which torch is not there yet, with images that hang where they
are read: a named pipe cannot be one (it is refused), so their reading is replaced.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.command import COMMAND, environment

# The command, with a loading of the model that waits until the first image is being read (or for
# good), and images that may hang. Prints on stdout what it has found.
SCRIPT = """
import json, sys, threading, time
from blip2cli.sources.base import ImageRef

how = json.loads(sys.argv.pop(1))
reading, torch_there = threading.Event(), []
read = ImageRef.read

def slow(self):
    torch_there.append("torch" in sys.modules)
    reading.set()
    if how.get("hang"):
        time.sleep(600)
    return read(self)

ImageRef.read = slow

import blip2cli.pipeline.compute.this_process as run
imported = run.import_model

def import_model():
    if how["prefetch"]:
        assert reading.wait(60)
    print("reading", flush=True)
    for _ in range(6000 * how.get("wait", False)):  # as an import would: step by step
        time.sleep(0.1)
    kind = imported()
    if not how["prefetch"]:
        assert not reading.wait(0.5)
    print(json.dumps(torch_there[:1]), flush=True)
    return kind

run.import_model = import_model
from blip2cli.cli.app import main
main()
"""


def start(tmp_path: Path, how: dict[str, Any], *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, json.dumps(how), *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(tmp_path / "hf"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests may ignore SIGINT, as a shell does for its background jobs.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_the_first_images_are_read_before_torch_is_imported(
    mixed: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ("embed", mixed, "--model", checkpoint, "-q", "--errors", "inline")
    process = start(tmp_path, {"prefetch": True}, *arguments, "-o", out)
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (3, "")
    assert printed.splitlines() == ["reading", "[false]"]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    names = ["a.png", "b-broken.jpg", "b.jpg", "c.webp", "d.png", "e/f.bmp"]
    assert [row["file_name"] for row in rows] == names
    assert [bool(row["error"]) for row in rows] == [name == "b-broken.jpg" for name in names]
    # The same bytes as where images are read when the model is there.
    by_workers = subprocess.run(
        [COMMAND, *map(str, arguments), "--workers", "1", "-o", "workers.jsonl"],
        cwd=tmp_path,
        env=environment(tmp_path / "hf"),
        check=False,
        timeout=120,
    )
    assert by_workers.returncode == 3
    assert (tmp_path / "workers.jsonl").read_bytes() == out.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hang", [False, True])
def test_a_signal_while_torch_is_imported_ends_the_run_at_once(
    number: signal.Signals, hang: bool, images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Even while the image that is being prefetched hangs."""
    how = {"prefetch": True, "wait": True, "hang": hang}
    out = tmp_path / "out.jsonl"
    process = start(tmp_path, how, "caption", images, "--model", checkpoint, "-o", out)
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    began = time.monotonic()
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 128 + number
    assert errors.startswith("0 images captioned")
    assert "Interrupted; the rows that were finished are safe." in errors
    assert "Traceback" not in errors
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_a_model_that_turns_out_wrong_is_named_at_once(
    images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Although the image that is being prefetched hangs."""
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    how = {"prefetch": True, "hang": True}
    process = start(tmp_path, how, "caption", images, "--model", broken)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert printed.splitlines() == ["reading", "[false]"]
    (sentence,) = errors.splitlines()
    assert "model.safetensors is damaged or cut short" in sentence


@pytest.mark.parametrize("arguments", [("--workers", "1"), ("--image-timeout", "60")])
def test_images_for_workers_are_not_prefetched(
    arguments: tuple[str, ...], images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    process = start(
        tmp_path, {"prefetch": False}, "embed", images, "--model", checkpoint, "-q", *arguments
    )
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    lines = printed.splitlines()
    assert lines[:2] == ["reading", "[]"]
    assert len(lines) == 2 + 5


def test_paths_on_stdin_are_not_prefetched(images: Path, checkpoint: Path, tmp_path: Path) -> None:
    """They come when they come."""
    (tmp_path / "paths").write_text(f"{images / 'a.png'}\n")
    command = (sys.executable, "-c", SCRIPT, json.dumps({"prefetch": False}))
    with (tmp_path / "paths").open() as paths:
        done = subprocess.run(
            [*command, "embed", "-", "--model", str(checkpoint), "-q"],
            cwd=tmp_path,
            env=environment(tmp_path / "hf"),
            stdin=paths,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == ["reading", "[]"]


# Takes the place of a module that Pillow imports, in workers too: the picture of this size ends
# whoever decodes it. Pillow is changed with the first import after it.
CRASHING = """
import importlib.util, os, signal, sys, sysconfig

class Patch:
    def find_spec(self, *arguments):
        image = sys.modules.get("PIL.Image")
        opened = getattr(image, "open", None)
        if opened is not None:
            sys.meta_path.remove(self)

            def crash(*arguments, **options):
                found = opened(*arguments, **options)
                if found.size == (31, 17):
                    os.kill(os.getpid(), signal.SIGSEGV)
                return found

            image.open = crash

sys.meta_path.insert(0, Patch())
real = os.path.join(sysconfig.get_path("stdlib"), "fractions.py")
spec = importlib.util.spec_from_file_location("fractions", real)
sys.modules["fractions"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["fractions"])
"""


def test_what_crashed_the_decoder_costs_one_image_when_the_run_is_resumed(
    images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(images, tmp_path / "photos"))
    Image.new("RGB", (31, 17), "red").save(folder / "c-crash.png")
    (tmp_path / "fractions.py").write_text(CRASHING)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    out = tmp_path / "out.jsonl"
    command = [
        COMMAND,
        "embed",
        folder,
        "--model",
        checkpoint,
        "-q",
        "--batch-size",
        "1",
        "-o",
        out,
    ]

    def done(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, command), *more],
            env=environment(tmp_path / "hf") | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert done().returncode == -signal.SIGSEGV
    second = done("--resume")
    assert second.returncode == 3, second.stderr  # torch says on stderr that a worker crashed
    assert "Traceback" not in second.stderr
    names = [json.loads(line)["file_name"] for line in out.read_text().splitlines()]
    assert names == ["a.png", "b.jpg", "c.webp", "d.png", "e/f.bmp"]
    (failure,) = map(json.loads, (tmp_path / "out.jsonl.errors").read_text().splitlines())
    assert (failure["file_name"], failure["error_type"]) == ("c-crash.png", "decoder_crashed")
