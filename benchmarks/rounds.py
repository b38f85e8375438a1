"""Running a race: processes side by side or, where one fills the memory, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from host import Host
from peers import absent
from races import Race
from work import Setting, Work

from blip2cli.options import ModelOptions

# Bytes a full model takes, with what computing needs beside it.
MODEL_BYTES = {"float32": 17e9, "bfloat16": 10e9, "int8": 12e9}
WARM = 4  # images of the run that warms up a peer that is alone


class RefusedError(Exception):
    """A race that cannot be run here, and why."""


class SkippedError(Exception):
    """A race whose peer is not installed."""


@dataclass
class Ran:
    """What became of one peer."""

    dtype: str
    numbers: range  # of the images it ran
    setting: Setting = field(default_factory=Setting)
    answers: list[list[Any]] = field(default_factory=list)  # by round
    seconds: list[float] = field(default_factory=list)  # by round
    tried: list[str] = field(default_factory=list)  # settings and how they did
    about: str = ""  # the peer, by itself

    @property
    def per_image(self) -> list[float]:
        """Seconds an image, by round."""
        return [seconds / len(self.numbers) for seconds in self.seconds]

    def add(self, answer: dict[str, Any]) -> None:
        """Count a round."""
        self.answers.append(answer["answers"])
        self.seconds.append(answer["seconds"])
        self.about = answer["about"]


def check(plan: Race) -> None:
    """Raise RefusedError when the race asks for what this version does not have, SkippedError when
    a peer is not installed."""
    for peer, _ in plan.peers:
        if why := absent(peer):
            raise SkippedError(why)
    names = {field.name for field in fields(ModelOptions)}
    if "quantize" not in names and any(dtype == "int8" for _, dtype in plan.peers):
        raise RefusedError("this version of blip2cli has no ModelOptions(quantize=…).")


def run(plan: Race, path: Path, work: Work) -> dict[str, Ran]:
    """All peers' rounds. Raises RefusedError when one does not fit into memory."""
    shares = {peer: plan.share if peer == "docs" else 1 for peer, _ in plan.peers}
    found = {peer: Ran(dtype, range(0, plan.images, shares[peer])) for peer, dtype in plan.peers}
    works = {peer: part(work, share) for peer, share in shares.items()}
    if plan.sequential:
        for peer, turns in groupby(turns_of(list(found), plan.rounds)):
            ran = found[peer]
            _check_memory(ran.dtype)
            with hosts(plan.kind, path, [(peer, ran.dtype)]) as (host,):
                _warm_up(host, plan, works[peer])
                for _ in turns:
                    _single_round(host, plan, works[peer], ran)
        return found
    with hosts(plan.kind, path, [(peer, ran.dtype) for peer, ran in found.items()]) as running:
        for host in running:  # the first run warms up, and is not counted
            setting = plan.settings(host.peer)[0]
            host.run(first(work, max(2, setting.batch_size)), setting)
            _settle(host, plan, first(work, max(plan.batches)), found[host.peer])
        for _ in range(plan.rounds):
            for host in running:
                ran = found[host.peer]
                ran.add(host.run(works[host.peer], ran.setting))
    return found


def turns_of(peers: list[str], rounds: int) -> list[str]:
    """Who runs when: every other round backwards, so that nobody is loaded twice in a row."""
    return [p for number in range(rounds) for p in (peers if number % 2 == 0 else peers[::-1])]


def part(work: Work, share: int) -> Work:
    """One image in ``share``."""
    lengths = work.lengths and work.lengths[::share]
    return replace(work, files=work.files[::share], lengths=lengths)


def first(work: Work, images: int) -> Work:
    """The first ``images`` images."""
    return replace(work, files=work.files[:images], lengths=work.lengths and work.lengths[:images])


@contextmanager
def hosts(kind: str, path: Path, peers: Sequence[tuple[str, str]]) -> Iterator[list[Host]]:
    """A process for each peer, started one after the other."""
    running: list[Host] = []
    try:
        for peer, dtype in peers:
            running.append(Host(kind, peer, path, dtype))
        yield running
    finally:
        for host in running:
            host.close()


def _warm_up(host: Host, plan: Race, work: Work) -> None:
    """The first run, which is not counted: one prompt about a few images."""
    setting = plan.settings(host.peer)[0]
    few = first(work, min(WARM, setting.batch_size or WARM))
    lengths = few.lengths and tuple(row[:1] for row in few.lengths)
    host.run(replace(few, prompts=few.prompts[:1], lengths=lengths), setting)


def _single_round(host: Host, plan: Race, work: Work, ran: Ran) -> None:
    """One round of a peer that is alone.

    Where several settings are tried, each try is the whole work, and the best one is the round.
    """
    settings = [ran.setting] if ran.answers else plan.settings(host.peer)
    tries = [(host.run(work, setting), setting) for setting in settings]
    answer, ran.setting = min(tries, key=lambda tried: tried[0]["seconds"])
    if len(tries) > 1:
        ran.tried = [_did(setting, found["seconds"], work) for found, setting in tries]
    ran.add(answer)


def _settle(host: Host, plan: Race, work: Work, ran: Ran) -> None:
    """Find the setting that suits the peer best, each tried once."""
    settings = plan.settings(host.peer)
    tried: dict[Setting, float] = {}
    if len(settings) > 1:
        for setting in settings:
            tried[setting] = host.run(work, setting)["seconds"]
        best = min(tried, key=tried.__getitem__)
        for workers in plan.workers[1:]:
            setting = replace(best, workers=workers)
            tried[setting] = host.run(work, setting)["seconds"]
    ran.setting = min(tried, key=tried.__getitem__) if tried else settings[0]
    ran.tried = [_did(setting, seconds, work) for setting, seconds in tried.items()]


def _did(setting: Setting, seconds: float, work: Work) -> str:
    workers = f" with {setting.workers} worker" if setting.workers else ""
    return f"{setting.batch_size}{workers}: {len(work.files) / seconds:.3g}"


def _check_memory(dtype: str) -> None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return  # no Linux; whoever starts it will see
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    if free < MODEL_BYTES[dtype]:
        raise RefusedError(
            f"the full model in {dtype} takes {MODEL_BYTES[dtype] / 1e9:.0f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free."
        )
