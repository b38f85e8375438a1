"""A model larger than memory: ``python benchmarks/offload.py``.

Captions with the random ``full`` (7.5 GB in bfloat16, see ``models.py``) where memory is limited to
4 GB: by a memory cgroup, which counts cached pages of files as well, or, where none can be made, by
what is sampled of the process's own memory (``RssAnon``). Each run is a process of its own that
finds nothing of the model's files cached. Printed are

* images/s of ``ours`` by batch size, one batch each,
* whether its texts are those of the model in memory whole (``--whole``: takes 9 GB),
* the same of transformers with ``device_map="auto"`` and a folder for what lies on disk, at several
  batch sizes, of which the best counts.

Every text has ``--tokens`` tokens. Loading and reading the images are not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models import build

GROUPS = Path("/sys/fs/cgroup")
SAMPLED = 0.05  # seconds between two looks at a process


def main() -> None:
    """Run everything that is compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--images", type=int, nargs="+", default=[8, 32, 64], help="batch sizes")
    parser.add_argument("--peer-images", type=int, nargs="*", default=[32, 64])
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--limit", type=int, default=4 << 30, help="bytes")
    parser.add_argument("--memory", default="2.5GiB", help="for weights, of ours")
    parser.add_argument("--peer-memory", default="2GiB", help="for weights, of the peer")
    parser.add_argument("--whole", action="store_true", help="compare with the model in memory")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child](options)))
        return
    build("full", options.models)
    ours = {n: measure("ours", n, options) for n in options.images}
    peer = {n: measure("peer", n, options) for n in options.peer_images}
    most = max(ours)
    if options.whole:
        whole = measure("whole", most, options, limited=False)
        same = sum(a == b for a, b in zip(ours[most]["texts"], whole["texts"], strict=True))
        print(f"ours: {same} of {most} texts are those of the model in memory")
    done = {n: found for n, found in peer.items() if found["texts"]}
    if done and ours[most]["texts"]:
        best = max(done, key=lambda n: n / done[n]["seconds"])
        ratio = most / ours[most]["seconds"] / (best / done[best]["seconds"])
        print(f"ours with {most} images beside the peer with {best}: {ratio:.2f} times as fast")
        pairs = zip(ours[most]["texts"], done[best]["texts"], strict=False)
        tokens = [a == b for one, other in pairs for a, b in zip(one, other, strict=True)]
        print(f"equal tokens: {sum(tokens) / len(tokens):.1%}")


def measure(child: str, images: int, options: argparse.Namespace, limited: bool = True) -> Any:
    """Run a process within the limit; its result, printed in a line."""
    forget(options.models / "full")
    command = [sys.executable, __file__, "--child", child, "--images", str(images)]
    for name in ("models", "tokens", "memory", "peer_memory"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    with cgroup(options.limit if limited else None) as group:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, preexec_fn=lambda: group and join(group)
        )
        anonymous = 0
        while process.poll() is None:
            anonymous = max(anonymous, own_memory(process.pid))
            time.sleep(SAMPLED)
    assert process.stdout is not None
    if process.returncode:
        print(f"{child} with {images} images ended with {process.returncode}")
        return {"seconds": float("inf"), "texts": []}
    found = json.loads(process.stdout.read())
    how = "cgroup" if group else "no cgroup"
    print(
        f"{child}, {images} images: {found['seconds']:.0f} s, {images / found['seconds']:.3f} "
        f"images/s; vision {found['vision']:.0f} s; {found['read'] / 1e9:.1f} GB read; at most "
        f"{anonymous / 1e9:.2f} GB of its own ({how}); loaded in {found['loaded']:.0f} s",
        flush=True,
    )
    return found


def forget(folder: Path) -> None:
    """Let the system drop what it has cached of a folder's files."""
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def cgroup(limit: int | None) -> Iterator[Path | None]:
    """A memory cgroup of version 1 or 2 with this limit; None where none can be made."""
    first = GROUPS / "memory" if (GROUPS / "memory").is_dir() else GROUPS
    group = first / f"offload-{os.getpid()}"
    file = group / ("memory.limit_in_bytes" if first != GROUPS else "memory.max")
    try:
        if limit is None:
            raise OSError
        group.mkdir()
        file.write_text(str(limit))
    except OSError:
        group_or_none = None
    else:
        group_or_none = group
    try:
        yield group_or_none
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


def join(group: Path) -> None:
    """Put this process into a cgroup."""
    (group / "cgroup.procs").write_text(str(os.getpid()))


def own_memory(pid: int) -> int:
    """Bytes of a process that are no pages of a file."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
    return 0


def bytes_read() -> int:
    """Bytes that this process had read from disks."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes"):
            return int(line.split()[1])
    return 0


def draw(images: int) -> Any:
    """Pixels of soft random colours, uint8 [N, 3, 224, 224]."""
    import torch

    small = torch.randint(
        0, 256, (images, 3, 14, 14), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    return small.repeat_interleave(16, 2).repeat_interleave(16, 3)


def ours(options: argparse.Namespace, whole: bool = False) -> dict[str, Any]:
    """Caption one batch with this package."""
    from blip2cli.pipeline.compute.this_process import import_model

    model_class = import_model()
    from blip2cli.model.tokenizer.fill_prompt import Prompt
    from blip2cli.options import DecodeOptions, ModelOptions

    (images,) = options.images
    began = time.perf_counter()
    memory = None if whole else f"cpu={options.memory}"
    path = str(options.models / "full")
    model = model_class.load(ModelOptions(path, device="cpu", dtype="bfloat16", max_memory=memory))
    loaded, read, start = time.perf_counter() - began, bytes_read(), time.perf_counter()
    features = model.features(draw(images))
    vision = time.perf_counter() - start
    prompts = [Prompt(image=number, text=None, name=str(number)) for number in range(images)]
    decoding = DecodeOptions(max_new_tokens=options.tokens, min_new_tokens=options.tokens)
    texts = model.generate(features, prompts, decoding)
    return {
        "seconds": time.perf_counter() - start,
        "vision": vision,
        "loaded": loaded,
        "read": bytes_read() - read,
        "texts": [list(text.tokens) for (text,) in texts],
    }


def peer(options: argparse.Namespace) -> dict[str, Any]:
    """Caption one batch with transformers, whose accelerate keeps layers on disk."""
    import torch
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    (images,) = options.images
    path = options.models / "full"
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = Blip2ForConditionalGeneration.from_pretrained(
            path,
            dtype=torch.bfloat16,
            device_map="auto",
            max_memory={"cpu": options.peer_memory},
            offload_folder=folder,
        )
        processor = AutoProcessor.from_pretrained(path)
        mean, std = (
            torch.tensor(each)[:, None, None]
            for each in (processor.image_processor.image_mean, processor.image_processor.image_std)
        )
        pixels = ((draw(images) / 255 - mean) / std).bfloat16()
        ids = torch.full(
            (images, model.config.num_query_tokens + 1), model.config.image_token_index
        )
        ids[:, -1] = processor.tokenizer.bos_token_id
        loaded, read, start = time.perf_counter() - began, bytes_read(), time.perf_counter()
        vision: list[float] = []
        model.qformer.register_forward_pre_hook(
            lambda *_: vision.append(time.perf_counter() - start)
        )
        with torch.inference_mode():
            found = model.generate(
                pixel_values=pixels,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=options.tokens,
                min_new_tokens=options.tokens,
                do_sample=False,
            )
    return {
        "seconds": time.perf_counter() - start,
        "vision": vision[0] if vision else 0.0,
        "loaded": loaded,
        "read": bytes_read() - read,
        "texts": found[:, -options.tokens :].tolist(),
    }


CHILDREN = {"ours": ours, "peer": peer, "whole": lambda options: ours(options, whole=True)}


if __name__ == "__main__":
    main()
