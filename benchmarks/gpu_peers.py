"""The peers of the GPU race, each in a process of its own: ``gpu_peers.py REQUEST ANSWER``.

* ``docs``, ``batched``: those of ``peers`` on the device; ``batched`` with worker processes and
  pinned memory.
* ``compiled``: ``batched`` with a static cache, whose steps ``generate`` compiles on CUDA, and with
  compiled vision encoder and Q-Former.
* ``vllm``: its offline engine, without caches that would know an image again.
* ``ours``: the pipeline of ``blip2cli caption``, from a folder of files to JSON lines.

The request says who does what on which device; settings are tried once on a few images, the best
one runs all of them, round after round. Loading the model does not count; reading and decoding the
files does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from work import Setting, Work

Tokens = list[list[list[int]]]  # [image][prompt][token]
Run = Callable[[Work, Setting], Tokens]


def reference(path: str, device: str, dtype: str, kind: str) -> Run:
    """A peer that is made of transformers' classes."""
    from reference import Batched, Docs, Lengths

    class OnDevice(Batched):
        pinned = device != "cpu"

        def __init__(self) -> None:
            super().__init__(path, dtype)
            self.model.to(device)

        def inputs(self, images: Any, text: str | None) -> dict[str, Tensor]:
            found = super().inputs(images, text)
            if torch.utils.data.get_worker_info() is not None:
                return found
            return {name: tensor.to(device) for name, tensor in found.items()}

        def batches(self, work: Work, setting: Setting) -> Iterator[tuple[list[int], Tensor]]:
            for numbers, pixels in super().batches(work, setting):
                yield numbers, pixels.to(device, non_blocking=True)

        def options(self, work: Work, lengths: Sequence[int] | None) -> dict[str, Any]:
            chosen = super().options(work, lengths)
            for criterion in chosen.get("stopping_criteria", ()):
                if isinstance(criterion, Lengths):
                    criterion.lengths = criterion.lengths.to(device)
            return chosen

    class OneByOne(OnDevice):
        run = Docs.run

    class Compiled(OnDevice):
        def __init__(self) -> None:
            super().__init__()
            backend = "eager" if device == "cpu" else "inductor"  # on a CPU it is a rehearsal
            for name in ("vision_model", "qformer"):
                part = getattr(self.model, name)
                part.forward = torch.compile(part.forward, backend=backend)

        def options(self, work: Work, lengths: Sequence[int] | None) -> dict[str, Any]:
            # One length for all batches: another would be compiled anew.
            most = max(max(row) for row in work.lengths) if work.lengths else work.max_new_tokens
            chosen = super().options(work, lengths)
            return chosen | {"max_new_tokens": most, "cache_implementation": "static"}

    run: Run = {"docs": OneByOne, "batched": OnDevice, "compiled": Compiled}[kind]().run
    return run


def vllm(path: str, device: str, dtype: str) -> Run:
    """vLLM's offline engine."""
    from concurrent.futures import ThreadPoolExecutor

    from PIL import Image
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams

    begin = AutoTokenizer.from_pretrained(path).bos_token_id
    engine = LLM(
        model=path,
        dtype=dtype,
        max_model_len=512,
        limit_mm_per_prompt={"image": 1},
        enable_prefix_caching=False,
        mm_processor_cache_gb=0,
    )

    def opened(file: str) -> dict[str, Any]:
        image = Image.open(file).convert("RGB")
        return {"prompt_token_ids": [begin], "multi_modal_data": {"image": image}}

    def run(work: Work, setting: Setting) -> Tokens:
        with ThreadPoolExecutor(max(1, setting.workers)) as threads:
            requests = list(threads.map(opened, work.files))
        lengths = work.lengths or [(work.max_new_tokens,)] * len(requests)
        chosen = [
            SamplingParams(temperature=0, max_tokens=n, ignore_eos=work.lengths is not None)
            for (n,) in lengths
        ]
        found = engine.generate(requests, chosen, use_tqdm=False)
        return [[list(each.outputs[0].token_ids)] for each in found]

    return run


def ours(path: str, device: str, dtype: str) -> Run:
    """``blip2cli caption FOLDER -o FILE`` but for the model, which is loaded beforehand."""
    from blip2cli.model.wrapper import Blip2
    from blip2cli.options import (
        DecodeOptions,
        LoaderOptions,
        ModelOptions,
        OutputOptions,
        RunOptions,
        SourceOptions,
    )
    from blip2cli.pipeline.image_items import ImageItems
    from blip2cli.pipeline.job import Job
    from blip2cli.pipeline.run import run as pipeline
    from blip2cli.tasks.caption import CaptionTask

    chosen = ModelOptions(path, device=device, dtype=dtype)  # type: ignore[arg-type]
    model = Blip2.load(chosen)

    class FixedModel:
        """The model, which gives each text its length and tells what it wrote."""

        def __init__(self, lengths: dict[str, int]) -> None:
            self.lengths = lengths
            self.tokens: dict[str, list[int]] = {}

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def generate(self, features: Any, prompts: Sequence[Any], options: Any) -> Any:
            asked = [replace(p, max_new_tokens=self.lengths.get(p.name)) for p in prompts]
            found = model.generate(features, asked, options)
            for prompt, texts in zip(prompts, found, strict=True):
                self.tokens[prompt.name] = list(texts[0].tokens)
            return found

    def run(work: Work, setting: Setting) -> Tokens:
        names = [Path(file).name for file in work.files]
        lengths = {n: row[0] for n, row in zip(names, work.lengths or (), strict=False)}
        fixed = FixedModel(lengths)
        with tempfile.TemporaryDirectory() as place:
            files = Path(place) / "files.txt"
            files.write_text("\n".join(work.files) + "\n", encoding="utf-8")
            task = CaptionTask(decode=DecodeOptions(max_new_tokens=work.max_new_tokens))
            options = RunOptions(
                SourceOptions((str(files),), absolute_paths=True),
                chosen,
                LoaderOptions(setting.batch_size or None, setting.workers or None),
                OutputOptions(str(Path(place) / "rows.jsonl")),
            )
            load: Any = lambda _: fixed  # noqa: E731
            summary = pipeline(Job(ImageItems(), task, options, load=load))
        if summary.done != len(names):
            raise RuntimeError(f"{len(names) - summary.done} images failed")
        if model.trouble:
            print(model.trouble, file=sys.stderr)
        by_name = {Path(name).name: tokens for name, tokens in fixed.tokens.items()}
        return [[by_name[name]] for name in names]

    return run


def made(peer: str, path: str, device: str, dtype: str) -> Run:
    """The peer of that name, with its model in memory."""
    if peer == "ours":
        return ours(path, device, dtype)
    if peer == "vllm":
        return vllm(path, device, dtype)
    return reference(path, device, dtype, peer)


def missing(peer: str, device: str) -> str | None:
    """Why the peer can't run here, or None."""
    if peer != "vllm":
        return None
    if device == "cpu":
        return "vLLM races on CUDA only"
    return None if importlib.util.find_spec("vllm") else "vLLM is not installed"


def first(work: Work, count: int) -> Work:
    """The work on the first images."""
    lengths = work.lengths and work.lengths[:count]
    return replace(work, files=work.files[:count], lengths=lengths)


def main() -> None:
    """Do what the request says, and write the answer."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    work = Work.from_json(request["work"])
    settings = [Setting(**setting) for setting in request["settings"]]
    on_cuda = request["device"] != "cpu"
    run = made(request["peer"], request["model"], request["device"], request["dtype"])

    def timed(part: Work, setting: Setting) -> tuple[float, Tokens]:
        began = time.perf_counter()
        found = run(part, setting)
        if on_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began, found

    tried: dict[str, float] = {}
    rates = []
    for setting in settings:
        # Once to warm up, which compiles and records; once to see.
        part = first(work, request["try"])
        try:
            run(part, setting)
            rate = len(part.files) / timed(part, setting)[0] if len(settings) > 1 else 0.0
        except torch.OutOfMemoryError:
            rate = -1.0  # as good as not there
            torch.cuda.empty_cache()
        rates.append(rate)
        tried[f"{setting.batch_size}, {setting.workers} workers"] = round(rate, 2)
    best = settings[rates.index(max(rates))]
    rounds = [timed(work, best) for _ in range(request["rounds"])]
    answer = {
        "seconds": [seconds for seconds, _ in rounds],
        "answers": rounds[-1][1],
        "setting": asdict(best),
        "tried": tried if len(settings) > 1 else {},
        "gpu_gib": torch.cuda.max_memory_allocated() / 2**30 if on_cuda else None,
    }
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
