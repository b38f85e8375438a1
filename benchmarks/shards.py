"""The memory that converting a large checkpoint takes: ``python benchmarks/shards.py``.

Makes a random model with the shapes of ``Salesforce/blip2-opt-2.7b`` in bfloat16 (7.5 GB; so much
again for the result), converts it into float16 in shards of 1 GB in a process of its own, and
reports that process's peaks, as Linux counts them: all of its resident memory (``VmHWM``), which
includes pages of the source that are only mapped, and its own (``RssAnon``). With ``--peer``
also those of transformers' ``from_pretrained`` and ``save_pretrained`` for the same task. All files
are removed in the end.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from blip2cli.convert.checkpoints.huggingface import expected_weights, write_config
from blip2cli.convert.checkpoints.released import RELEASED
from blip2cli.convert.checkpoints.shards import parse_size, write_shards
from blip2cli.model.checkpoint.embedded import embedded_path
from blip2cli.model.checkpoint.lazy_weights import Weight
from blip2cli.model.families import OPT

COMMAND = Path(sys.executable).with_name("blip2cli")
TILE = 1 << 20  # random numbers; each weight repeats them from a place of its own

PEER = """
import sys, torch
from transformers import Blip2ForConditionalGeneration
model = Blip2ForConditionalGeneration.from_pretrained(sys.argv[1], dtype=torch.float16)
model.save_pretrained(sys.argv[2], max_shard_size=sys.argv[3])
"""


def make_model(folder: Path, limit: int) -> int:
    """Write the random model, weight by weight; returns its size in bytes."""
    config = RELEASED[0].config(224, 32)
    shapes, tied = expected_weights(config, OPT)
    tile = torch.randn(TILE).mul_(0.02).bfloat16()

    def loader(shape: tuple[int, ...], number: int) -> Callable[[], Tensor]:
        size = torch.Size(shape).numel()
        return lambda: tile.roll(number).repeat(-(-size // TILE))[:size].reshape(shape)

    weights = {
        name: Weight(shape, torch.bfloat16, loader(shape, number))
        for number, (name, shape) in enumerate(shapes.items())
        if name not in tied
    }
    folder.mkdir()
    write_config(config, folder, torch.bfloat16)
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        shutil.copyfile(embedded_path("tiny") / name, folder / name)
    write_shards(weights, folder, limit, lambda done, total: None)
    return sum(weight.nbytes for weight in weights.values())


def watch(command: list[str]) -> tuple[float, float, float]:
    """Run it; returns seconds, peak resident and peak anonymous memory in MB."""
    began = time.perf_counter()
    process = subprocess.Popen(command)
    peak = {"VmHWM": 0, "RssAnon": 0}
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:  # it has just ended
            break
        for line in status.splitlines():
            name, _, rest = line.partition(":")
            if name in peak:
                peak[name] = max(peak[name], int(rest.split()[0]))
        time.sleep(0.005)
    if process.wait() != 0:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    return time.perf_counter() - began, peak["VmHWM"] / 1000, peak["RssAnon"] / 1000


def main() -> None:
    """Make the model, convert it, report and tidy up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="where 15 GB are free; default: for temporaries")
    parser.add_argument("--source-shards", default="5GB", help="largest file of the source")
    parser.add_argument("--max-shard-size", default="1GB", help="largest file of the result")
    parser.add_argument("--peer", action="store_true", help="measure transformers as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        source, out = Path(name) / "model", Path(name) / "out"
        size = make_model(source, parse_size(options.source_shards))
        print(f"source: {size / 1e9:.2f} GB in bfloat16, files of at most {options.source_shards}")
        ours = [str(COMMAND), "convert", str(source), str(out), "--dtype", "float16"]
        ours += ["--max-shard-size", options.max_shard_size, "--quiet"]
        tasks = {"blip2cli convert tiny": [str(COMMAND), "convert", "tiny", f"{out}-tiny", "-q"]}
        tasks["blip2cli convert"] = ours
        if options.peer:
            arguments = [str(source), str(out), options.max_shard_size]
            tasks["transformers"] = [sys.executable, "-c", PEER, *arguments]
        for title, command in tasks.items():
            seconds, resident, own = watch(command)
            print(f"{title:22} {seconds:6.1f} s, VmHWM {resident:6.0f} MB, RssAnon {own:6.0f} MB")
            files = sorted(out.glob("*.safetensors")) if out.is_dir() else []
            if files:
                largest = max(file.stat().st_size for file in files)
                print(f"{'':22} {len(files)} files, the largest {largest / 1e6:.0f} MB")
            shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    main()
