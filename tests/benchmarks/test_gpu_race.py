"""The race for GPUs: its arithmetic and its page; and the whole of it, rehearsed on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import gpu_race
import pytest
from arithmetic import Part
from gpu_peers import first, missing
from gpu_race import Ran, agreement, arguments, page, settings, summarize
from machine import Machine
from work import Setting, Work

pytestmark = pytest.mark.external

SCRIPT = Path(gpu_race.__file__).with_name("gpu.sh")
MACHINE = Machine("GPU", 8, {"bfloat16": 100.0}, 50.0)


def ran(peer: str, *texts: list[int], seconds: float = 2.0) -> Ran:
    setting = {"batch_size": 4, "workers": 1}
    return Ran(peer, len(texts), [seconds], [[text] for text in texts], setting)


def test_agreement_counts_texts_and_tokens_before_they_part() -> None:
    ours = ran("ours", [1, 2, 3], [4, 5, 6, 7], [8])
    assert agreement(ours, ours) == (1.0, 1.0)
    assert agreement(ran("docs", [1, 2, 3], [4, 9, 6, 7]), ours) == (1 / 2, 4 / 7)
    assert agreement(ran("docs", [1, 2], [4, 5, 6, 7], [8]), ours) == (2 / 3, 7 / 8)


def test_shares_are_of_what_was_measured() -> None:
    peers = [
        ran("docs", [1], seconds=4.0),
        Ran("vllm", 2, why="vLLM is not installed"),
        ran("ours", [1], [2], seconds=2.0),
    ]
    parts = [Part("vision", 60.0), Part("decode", 10.0, 35.0)]
    found = summarize(peers, MACHINE, parts, "bfloat16")
    assert found["share_of_peak"] == pytest.approx(70 / 2 / 100)
    assert found["share_of_limit"] == pytest.approx((0.6 + 0.7) / 2)
    docs, vllm, ours = found["results"]
    assert docs["images_per_second"] == 0.25
    assert docs["ours_is_faster_by"] == 4.0
    assert ours["ours_is_faster_by"] == 1.0
    assert vllm == {"peer": "vllm", "images": 2, "skipped": "vLLM is not installed"}
    said = page(found)
    assert "| docs | 1 | 4, 1 | 0.25 | 4.00x | 100.0% | 100.0% |" in said
    assert "| vllm | – | vLLM is not installed | – | – | – | – |" in said
    assert "35.0% of the measured peak" in said


def test_only_those_who_choose_try_several_settings() -> None:
    options = arguments(["--batches", "128", "32", "--workers", "7", "--images", "64"])
    assert settings("docs", options) == [Setting(1)]
    assert settings("batched", options) == [Setting(32, 7), Setting(64, 7)]
    assert settings("ours", options) == [Setting(0, 7)]
    assert options.dtype == "bfloat16"
    assert arguments(["--device", "cpu"]).dtype == "float32"


def test_vllm_is_left_out_with_a_line() -> None:
    assert missing("vllm", "cpu") == "vLLM races on CUDA only"
    assert missing("ours", "cpu") is None


def test_a_part_of_the_work_keeps_its_lengths() -> None:
    work = Work("caption", ("a", "b", "c"), lengths=((1,), (2,), (3,)))
    part = first(work, 2)
    assert part.files == ("a", "b")
    assert part.lengths == ((1,), (2,))


def test_it_can_be_rehearsed(tmp_path: Path) -> None:
    words = "--device cpu --model tiny --images 3 --docs-images 2 --rounds 1 --peers docs"
    here = ["--workers", "0", "--models", str(tmp_path), "--out", str(tmp_path)]
    done = subprocess.run(
        [str(SCRIPT), *words.split(), *here],
        env=os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu-results.json").read_text(encoding="utf-8"))
    docs, ours = found["results"]
    assert (docs["images"], ours["images"]) == (2, 3)
    assert docs["equal_texts"] == docs["equal_tokens"] == 1.0
    assert 0 < found["share_of_peak"] < found["share_of_limit"] < 1
    assert (tmp_path / "GPU-RESULTS.md").read_text(encoding="utf-8") in done.stdout
