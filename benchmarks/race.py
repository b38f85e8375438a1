"""Side by side: this package and what people run today, on the same images, prompts and weights.

``python benchmarks/race.py [NAME…]`` runs the named races, or all that end within minutes; every
output is compared token by token with the first peer's before a time is printed. Results are added
to ``benchmarks/results.json``, and ``benchmarks/RESULTS.md`` is written from it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from host import Host
from work import QUESTIONS, Work, draw_images, draw_lengths

HERE = Path(__file__).resolve().parent
TEMPLATES = {"opt": "Question: {} Answer:", "t5": "Question: {} Short answer:"}


@dataclass(frozen=True)
class Race:
    """Who runs what."""

    model: str
    images: int
    kind: str  # caption, ask, beam
    peers: tuple[tuple[str, str], ...]  # peer and precision
    batches: tuple[int, ...] = (8, 16, 32)  # tried by ``batched`` and ``cached``
    ours: int = 16  # batch size
    rounds: int = 3
    share: int = 1  # ``docs`` runs only one image in so many, and its time counts so many fold

    def work(self, folder: Path) -> Work:
        """The images and what is asked."""
        files = tuple(draw_images(folder, self.images))
        prompts: tuple[str | None, ...] = (None,)
        if self.kind == "ask":
            template = TEMPLATES["t5" if self.model.endswith("t5") else "opt"]
            prompts = tuple(template.format(question) for question in QUESTIONS)
        lengths = None
        if self.kind != "beam" and self.model != "tiny":
            lengths = draw_lengths(self.images, len(prompts))
        beams = 5 if self.kind == "beam" else 1
        return Work(self.kind, files, prompts, lengths, num_beams=beams)


_FP32 = (("docs", "float32"), ("batched", "float32"), ("ours", "float32"))
_ASK = (("docs", "float32"), ("batched", "float32"), ("cached", "float32"), ("ours", "float32"))
RACES: dict[str, Race] = {
    "caption-tiny": Race("tiny", 256, "caption", _FP32),
    "caption-mid-opt": Race("mid-opt", 128, "caption", _FP32, share=4),
    "caption-mid-t5": Race("mid-t5", 128, "caption", _FP32, share=4),
    "ask-mid-opt": Race("mid-opt", 32, "ask", _ASK, share=4),
    "ask-mid-t5": Race("mid-t5", 32, "ask", _ASK, share=4),
    "beam-mid-opt": Race("mid-opt", 32, "beam", (("batched", "float32"), ("ours", "float32"))),
}


@dataclass(frozen=True)
class Result:
    """How one peer did."""

    peer: str
    dtype: str
    batch_size: int
    seconds: float  # median of the rounds
    images_per_second: float


def race(name: str, models: Path) -> dict[str, Any]:
    """Run one race. Raises SystemExit when two peers differ in a single token."""
    from models import build

    plan = RACES[name]
    path = build(plan.model, models)
    work = plan.work(models / "images")
    hosts = {peer: Host(peer, path, dtype, plan.ours) for peer, dtype in plan.peers}
    try:
        for peer in ("batched", "cached"):
            if peer in hosts:
                hosts[peer].close()
                hosts[peer] = _fastest(peer, path, dict(plan.peers)[peer], plan, work)
        works = {peer: _part(work, plan.share if peer == "docs" else 1) for peer in hosts}
        answers: dict[str, list[dict[str, Any]]] = {peer: [] for peer in hosts}
        for host in hosts.values():  # the first run warms up, and is not counted
            host.run(_part(work, max(1, plan.images // 8)).as_json())
        for _ in range(plan.rounds):
            for peer, host in hosts.items():
                answers[peer].append(host.run(works[peer].as_json()))
        _compare(answers, plan)
    finally:
        for host in hosts.values():
            host.close()
    found = []
    for peer, dtype in plan.peers:
        seconds = statistics.median(answer["seconds"] for answer in answers[peer])
        rate = len(works[peer].files) / seconds
        found.append(Result(peer, dtype, hosts[peer].batch_size, plan.images / rate, rate))
    return {"race": name, "images": plan.images, "results": [vars(each) for each in found]}


def _part(work: Work, share: int) -> Work:
    """One image in ``share``."""
    lengths = work.lengths and work.lengths[::share]
    return replace(work, files=work.files[::share], lengths=lengths)


def _fastest(peer: str, path: Path, dtype: str, plan: Race, work: Work) -> Host:
    """The peer at the batch size that suits it best."""
    best: tuple[float, Host] | None = None
    for size in plan.batches:
        host = Host(peer, path, dtype, size)
        host.run(_part(work, max(1, plan.images // 8)).as_json())
        taken = host.run(work.as_json())["seconds"]
        if best is not None and best[0] <= taken:
            host.close()
            continue
        if best is not None:
            best[1].close()
        best = (taken, host)
    assert best is not None
    return best[1]


def _compare(answers: dict[str, list[dict[str, Any]]], plan: Race) -> None:
    """Demand the same tokens of all who compute in the same precision."""
    first = plan.peers[0][0]
    wanted = answers[first][0]["tokens"]
    for peer, dtype in plan.peers:
        if dtype != plan.peers[0][1]:
            continue
        got = answers[peer][0]["tokens"]
        if first == "docs" and peer != "docs":
            got = got[:: plan.share]
        wrong = [i for i, (a, b) in enumerate(zip(wanted, got, strict=True)) if a != b]
        if wrong:
            i = wrong[0]
            sys.exit(
                f"{peer} differs from {first} in {len(wrong)} of {len(wanted)} images, first in "
                f"image {i}: {got[i]} instead of {wanted[i]}; no time is printed."
            )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Race against what people run today.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RACES)}")
    parser.add_argument("--models", type=Path, help="where random models are kept between runs")
    options = parser.parse_args()
    unknown = set(options.names) - set(RACES)
    if unknown:
        parser.error(f"there is no race {', '.join(sorted(unknown))}; choose of {', '.join(RACES)}")
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as place:
        models = options.models or Path(place)
        for name in options.names or list(RACES):
            show(race(name, models))


def show(found: dict[str, Any]) -> None:
    """Print one race."""
    ours = found["results"][-1]
    print(f"{found['race']}: {found['images']} images, same tokens from all of one precision")
    for each in found["results"]:
        ratio = each["seconds"] / ours["seconds"]
        print(
            f"  {each['peer']:8} {each['dtype']:9} batch {each['batch_size']:3} "
            f"{each['images_per_second']:8.2f} images/s   ours is {ratio:.2f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
