"""Engines with an interpreter of their own: left out where they are not, and what vLLM gets."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import race
import rounds
import vllm_peer
from peers import PACKAGES, absent, interpreter, load
from races import RACES
from work import Setting, Work, draw_images

from blip2cli.model.checkpoint.embedded import embedded_path

FOREIGN = {name: plan for name, plan in RACES.items() if set(dict(plan.peers)) & set(PACKAGES)}


def test_they_are_looked_for_where_make_puts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PEERS", raising=False)
    assert interpreter("ours") == Path(sys.executable)
    assert interpreter("vllm").parts[-5:] == ("build", "peers", "vllm", "bin", "python")
    monkeypatch.setenv("PEERS", str(tmp_path))
    python = tmp_path / "openvino" / "bin" / "python"
    assert interpreter("openvino") == python
    assert absent("openvino") == f"OpenVINO is not installed ({python}): make peers installs it."
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert absent("openvino") is None
    assert absent("batched") is None


def test_a_race_without_its_peer_is_left_out_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {peer for plan in FOREIGN.values() for peer, _ in plan.peers} >= set(PACKAGES)
    monkeypatch.setenv("PEERS", str(tmp_path))
    for plan in FOREIGN.values():
        with pytest.raises(rounds.SkippedError):
            rounds.check(plan)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_VERBOSITY"):  # set by the script
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(sys, "argv", ["race.py", *FOREIGN])
    assert race.main() == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(FOREIGN)
    assert all("is not installed" in line for line in lines)


class StandIn:
    """Takes the requests of vLLM's engine, and writes ones."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.requests: list[Any] = []

    def generate(self, requests: list[Any], chosen: list[Any], use_tqdm: bool) -> list[Any]:
        self.requests = requests
        texts = [SimpleNamespace(token_ids=[1] * each.max_tokens) for each in chosen]
        return [SimpleNamespace(outputs=[text]) for text in texts]

    def get_metrics(self) -> list[Any]:
        return [
            SimpleNamespace(name="vllm:prefix_cache_hits", value=64),
            SimpleNamespace(name="vllm:prefix_cache_queries", value=80),
            SimpleNamespace(name="vllm:some_histogram"),
        ]


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("vllm")
    module.LLM, module.SamplingParams = StandIn, SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(vllm_peer, "preload", lambda: None)


@pytest.fixture
def engine() -> vllm_peer.Engine:
    found: vllm_peer.Engine = load("ask", "vllm", str(embedded_path("tiny")), "bfloat16")
    return found


def test_questions_about_one_image_share_its_name_within_a_run(
    engine: vllm_peer.Engine, tmp_path: Path
) -> None:
    files = tuple(draw_images(tmp_path, 2, (32, 32)))
    work = Work("ask", files, ("one?", "two?"), lengths=((3, 1), (2, 4)))
    assert engine.run(work, Setting()) == [[[1] * 3, [1]], [[1] * 2, [1] * 4]]
    stand_in: Any = engine.engine
    names = [each["multi_modal_uuids"]["image"] for each in stand_in.requests]
    assert names == ["1-0", "1-0", "1-1", "1-1"]
    ids = [each["prompt_token_ids"] for each in stand_in.requests]
    assert ids[0] == ids[2] != ids[1] == ids[3]
    engine.run(work, Setting())
    assert stand_in.requests[0]["multi_modal_uuids"] == {"image": "2-0"}
    assert "64 of 80 positions of prompts were shared" in engine.about


def test_a_caption_asks_with_the_begin_token_alone(
    engine: vllm_peer.Engine, tmp_path: Path
) -> None:
    engine.run(Work("caption", tuple(draw_images(tmp_path, 1, (32, 32)))), Setting())
    stand_in: Any = engine.engine
    (request,) = stand_in.requests
    assert request["prompt_token_ids"] == [engine.tokenizer.bos_token_id]
    assert stand_in.options["block_size"] == vllm_peer.BLOCK


def test_it_may_choose_the_size_of_its_blocks_itself() -> None:
    engine = load("ask", "vllm-default", str(embedded_path("tiny")), "bfloat16")
    assert "block_size" not in engine.engine.options
    assert interpreter("vllm-default") == interpreter("vllm")


def test_every_other_round_is_run_backwards() -> None:
    assert rounds.turns_of(["a", "b"], 3) == ["a", "b", "b", "a", "a", "b"]
