"""Fuzzing all that is read but images: archives, tables, lists, outputs and checkpoints.

``python -m tests.torture.fuzz --mutants 200 --seed 7``; ``--only KIND/NUMBER`` repeats one.
Small valid files are mutated (bytes, bits, lengths set to extremes, slices moved, cuts; of JSON
also values replaced by others), and a command reads them: ``caption`` and ``ask`` a source or a
list of questions, ``convert`` and ``--resume`` an output, ``caption`` a checkpoint. The run has to
end in time, within a limit of memory, with rows and named failures, or with one sentence. An
output that a resumed run refuses keeps its bytes.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blip2cli.model.checkpoint.embedded import embedded_path
from tests.drawn_source import draw_source
from tests.fork_server import ForkServer
from tests.torture.mutants import mutate
from tests.torture.report import Report
from tests.torture.stages import STUB
from tests.workload import Violation

MEMORY = 2 << 30  # bytes a run may take beyond what its libraries take
SECONDS = 60.0  # until a run counts as hanging
TINY = ("--model", "tiny", "--quiet", "--workers", "0")
OTHERS = (None, True, 0, -1, 1.5, 1 << 40, 1 << 70, "", "x", [], [1], {}, {"a": 1})


@dataclass(frozen=True)
class Target:
    """A kind of file: valid ones by name, and the commands that read them in ``{folder}``."""

    kind: str
    files: dict[str, bytes]
    commands: tuple[tuple[str, ...], ...]
    loads_model: bool = False


def targets(root: Path) -> Iterator[Target]:
    """Every kind, made from four drawn images."""
    source = draw_source(root / "source", 4)
    images = {
        path.relative_to(source).as_posix(): path.read_bytes()
        for path in sorted(source.rglob("*.png"))
    }
    for kind, data in (
        ("tar", _tar(images, "")),
        ("tar.gz", _tar(images, "gz")),
        ("zip", _zip(images)),
        ("parquet", _image_parquet(images)),
    ):
        yield Target(kind, {f"in.{kind}": data}, (_caption(f"in.{kind}"),))
    for suffix, data in _manifests(images).items():
        name = f"in.{suffix}"
        keep = () if suffix == "txt" else ("--keep", "n")
        yield Target(f"manifest.{suffix}", {name: data} | images, ((*_caption(name), *keep),))


def questions(root: Path) -> Iterator[Target]:
    """Lists of questions, which a model's tokenizer has to encode."""
    images = {
        f"a/{path.name}": path.read_bytes() for path in sorted((root / "source").rglob("*.png"))
    }
    lists = {
        "in.txt": b"how many cats?\nis there a dog?\n",
        "in.jsonl": b'{"question": "how many cats?", "id": 7}\n{"question": "why?", "id": 8}\n',
        "in.csv": b"question,id\nhow many cats?,7\nwhy?,8\n",
    }
    for name, data in lists.items():
        ask = ("ask", "{folder}/a", *TINY, "--questions", f"{{folder}}/{name}")
        yield Target(f"questions.{name[3:]}", {name: data} | images, (ask,))


def outputs(fork_server: ForkServer, root: Path) -> Iterator[Target]:
    """Outputs of a whole run, with what lies beside them."""
    for suffix in (".jsonl", ".jsonl.gz", ".parquet"):
        folder = root / f"output{suffix}"
        folder.mkdir()
        draw_source(folder / "images", 6)
        line = ("caption", "{folder}/images", *TINY, "-o", f"{{folder}}/out{suffix}", "--resume")
        fork_server.start([part.format(folder=folder) for part in line], folder).wait()
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        to = ".csv" if suffix == ".parquet" else ".parquet"
        convert = ("convert", f"{{folder}}/out{suffix}", f"{{folder}}/other{to}")
        yield Target(f"output{suffix}", files, (line, convert))


def checkpoints() -> Iterator[Target]:
    """The embedded model, as somebody else's directory: as it is, quantized, and pickled."""
    import torch  # the server that the commands are forked from has it too
    from safetensors.torch import load, save

    from tests.foreign_checkpoints import four_bits, fp8, is_linear, llm_int8

    tiny = embedded_path("tiny")
    files = {path.name: path.read_bytes() for path in tiny.iterdir() if path.is_file()}
    base = ("caption", "{folder}/images", "--model", "{folder}", "--quiet", "--workers", "0")
    command = (*base, "--max-new-tokens", "2")
    yield Target("checkpoint", files, (command,), loads_model=True)
    small = {name: data for name, data in files.items() if "safetensors" not in name}
    parts = [data for name, data in files.items() if name.endswith(".safetensors")]
    plain = {name: weight for part in parts for name, weight in load(part).items()}
    quantized: dict[str, torch.Tensor] = {}
    for name, weight in plain.items():
        stored = {name: weight}
        if is_linear(name, weight):
            part_of = name.partition(".")[0]
            if part_of == "language_model":
                stored, _ = four_bits(name, weight, nested=True)
            else:
                stored, _ = (llm_int8 if part_of == "vision_model" else fp8)(name, weight)
        quantized |= stored
    commands = (command, (*command, "--quantize", "int8"))
    one = small | {"model.safetensors": save(quantized)}
    yield Target("checkpoint.quantized", one, commands, loads_model=True)
    buffer = io.BytesIO()
    torch.save(plain, buffer, _use_new_zipfile_serialization=False)
    one = small | {"pytorch_model.bin": buffer.getvalue()}
    yield Target("checkpoint.pickle", one, (command,), loads_model=True)


def _caption(name: str) -> tuple[str, ...]:
    return ("caption", f"{{folder}}/{name}", *TINY)


def _tar(images: dict[str, bytes], compression: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as tar:  # type: ignore[call-overload]
        for name, data in images.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _zip(images: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in images.items():
            packed.writestr(name, data)
    return buffer.getvalue()


def _parquet(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _image_parquet(images: dict[str, bytes]) -> bytes:
    cells = [{"bytes": data, "path": name} for name, data in images.items()]
    return _parquet({"image": cells, "n": list(range(len(cells)))})


def _manifests(images: dict[str, bytes]) -> dict[str, bytes]:
    names = list(images)
    rows = [{"file_name": name, "n": n} for n, name in enumerate(names)]
    return {
        "txt": "".join(f"{name}\n" for name in names).encode(),
        "jsonl": "".join(f"{json.dumps(row)}\n" for row in rows).encode(),
        "csv": "".join(["file_name,n\n", *(f"{n},{i}\n" for i, n in enumerate(names))]).encode(),
        "parquet": _parquet({"file_name": names, "n": list(range(len(names)))}),
    }


def changed(target: Target, draw: random.Random) -> dict[str, bytes]:
    """The files with one of them mutated: the first, or for outputs and checkpoints any."""
    files = dict(target.files)
    together = target.kind.startswith(("output", "checkpoint"))
    name = draw.choice(sorted(files)) if together else next(iter(files))
    data = files[name]
    if name.endswith(".json") and draw.random() < 0.7:
        files[name] = _other_json(data, draw)
    elif name.endswith(".safetensors"):
        head = 8 + int.from_bytes(data[:8], "little")
        files[name] = bytes(mutate(data[:head], draw, {"self": data[:head]})) + data[head:]
    else:
        files[name] = bytes(mutate(data, draw, {"self": data}))
    return files


def _other_json(data: bytes, draw: random.Random) -> bytes:
    """Replace or remove one value, at any depth."""
    value = json.loads(data)
    place: Any = value
    while True:
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = draw.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and draw.random() < 0.8:
            place = place[key]
        elif draw.random() < 0.2:
            del place[key]
            break
        else:
            place[key] = draw.choice(OTHERS)
            break
    return json.dumps(value).encode()


def try_one(target: Target, fork_server: ForkServer, root: Path, draw: random.Random) -> None:
    """Lay the files out, run a command; raises ``Violation`` or ``TimeoutError``."""
    folder = root / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / f"{target.kind}-images", folder / "images")
    files = changed(target, draw)
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    line = [part.format(folder=folder) for part in draw.choice(target.commands)]
    child = fork_server.start(line, folder, memory=MEMORY, loads_model=target.loads_model)
    ended = child.wait(SECONDS)
    if ended.code not in (0, 1, 2, 3):
        raise Violation(f"{' '.join(line)} ended with {ended}")
    for sign in ("Traceback", "Internal error", "Exception ignored"):
        if sign in ended.stderr:
            raise Violation(f"{' '.join(line)} wrote {ended.stderr[-600:]!r}")
    if ended.code in (1, 2):
        if not ended.stderr.startswith("blip2cli: "):
            raise Violation(f"{' '.join(line)} wrote {ended.stderr[-600:]!r}")
        out = [name for name in files if name.startswith("out.") and not name.endswith(".errors")]
        if any((folder / name).read_bytes() != files[name] for name in out):
            raise Violation(f"{' '.join(line)} refused an output and changed it")


def main() -> int:
    """Command line: returns 1 when any run did what it must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.fuzz")
    parser.add_argument("--mutants", type=int, default=300, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="KIND[/NUMBER]", help="one kind, or one mutant of it")
    keep = Path(tempfile.gettempdir(), "torture-fuzz")
    parser.add_argument("--keep", type=Path, default=keep)
    options = parser.parse_args()
    report = Report("fuzz", options.keep)
    kind, _, number = (options.only or "").partition("/")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with ForkServer(STUB) as stub:
            for target in (*targets(root), *outputs(stub, root)):
                if kind in ("", target.kind):
                    _try_all(target, stub, root, options, number, report)
        with ForkServer() as real:
            for target in (*questions(root), *checkpoints()):
                if kind in ("", target.kind):
                    _try_all(target, real, root, options, number, report)
    print(report.line())
    return 1 if report.failures else 0


def _try_all(
    target: Target,
    fork_server: ForkServer,
    root: Path,
    options: argparse.Namespace,
    number: str,
    report: Report,
) -> None:
    draw_source(root / f"{target.kind}-images", 6 if target.kind.startswith("output") else 2)
    for one in [int(number)] if number else range(options.mutants):
        draw = random.Random(f"{options.seed}/{target.kind}/{one}")
        name = f"{target.kind}/{one}"
        repeat = f"python -m tests.torture.fuzz --seed {options.seed} --only {name}"
        with report.trial(name, root / "trial", repeat):
            try_one(target, fork_server, root, draw)
            report.survive(target.kind)


if __name__ == "__main__":
    sys.exit(main())
