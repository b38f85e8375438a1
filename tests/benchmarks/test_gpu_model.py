"""The model of costs on GPUs: what it counts, and how it is set against what was measured."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu_counts
import gpu_model
import gpu_rates
import pytest
from arithmetic import image_parts, text_parts
from gpu_counts import Counts, Kernel, Segment, count
from gpu_model import compare, explain, kernel_seconds, model, table
from gpu_rates import GPUS, Gpu
from transformers import Blip2Config

from tests.benchmarks.test_arithmetic import flops, texts
from tests.pretend import what_is_missing

MISSING = what_is_missing()
H200 = GPUS[0]
SMALL: dict[str, Any] = {
    "vision_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 28,
    },
    "qformer_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "encoder_hidden_size": 64,
    },
    "num_query_tokens": 8,
    "text_config": {
        "model_type": "opt",
        "hidden_size": 64,
        "word_embed_proj_dim": 64,
        "ffn_dim": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 512,
    },
}
BATCH = 24
# A device on which a second goes by for each operation and byte.
SLOW = Gpu("slow", 1.0, 1.0, 1.0, 2)


def counts(**segments: Segment) -> Counts:
    return Counts(10, 256, 1.0, segments)


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_products_are_those_that_the_arithmetic_says() -> None:
    found = count(H200, SMALL, BATCH)
    config = Blip2Config(**SMALL)
    parts = image_parts(config, BATCH) + text_parts(config, "bfloat16", BATCH, 8, texts(1))[:1]
    # The queries attend to one another before they see an image: once for all images.
    width, queries = 64, 8
    shared = 8 * queries * width**2 + 4 * queries**2 * width
    vision = found.segments["vision"]
    counted = sum(kernel.flops * n for kernel, n in vision.kernels.items())
    assert counted == flops(parts) - (BATCH - 1) * shared
    assert vision.times == 1
    assert found.batch == BATCH
    # The longest of the texts has 20 tokens at most, so there are as many steps.
    steps = {name: its for name, its in found.segments.items() if name.startswith("step")}
    assert 7 <= sum(its.times for its in steps.values()) <= 21
    assert sum(its.waits for its in steps.values()) == 0
    weights = 2 * 512 * 64  # bytes of the output matrix
    for its in steps.values():
        assert any(kernel.bytes > weights for kernel in its.kernels if kernel.flops)
    assert Counts.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_a_kernel_takes_as_long_as_its_products_or_its_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, share in (("PRODUCT", 0.5), ("ATTENTION", 0.1), ("READING", 0.25), ("COPYING", 1.0)):
        monkeypatch.setattr(gpu_rates, f"{name}_SHARE", share)
    assert kernel_seconds(Kernel("mm", 8.0, 2.0), SLOW) == 16.0
    assert kernel_seconds(Kernel("mm", 1.0, 2.0), SLOW) == 8.0
    assert kernel_seconds(Kernel("scaled_dot_product_attention", 8.0, 2.0), SLOW) == 80.0
    assert kernel_seconds(Kernel("add", 0.0, 2.0), SLOW) == 2.0
    assert kernel_seconds(Kernel("add", 0.0, 2.0), H200) == gpu_rates.SHORTEST


def test_what_is_launched_one_by_one_takes_the_host_at_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_rates, "LAUNCH", 3.0)
    monkeypatch.setattr(gpu_rates, "WAIT", 100.0)
    monkeypatch.setattr(gpu_rates, "COPYING_SHARE", 1.0)
    kernels = Counter({Kernel("add", 0.0, 2.0): 4})
    assert gpu_model.segment_seconds("step 8", Segment(5, 0, kernels), SLOW) == 5 * 8
    assert gpu_model.segment_seconds("prefill 8", Segment(5, 0, kernels), SLOW) == 5 * 12
    assert gpu_model.segment_seconds("prefill 8", Segment(5, 2, kernels), SLOW) == 5 * 12 + 200


def test_no_more_images_than_the_host_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = counts(vision=Segment(1, 0, Counter({Kernel("mm", 1.0, 1.0): 1})))
    assert model(H200, quick).rate == gpu_rates.DECODED * (H200.cores - 1)
    assert model(replace(H200, cores=2), quick).rate == gpu_rates.DECODED
    assert model(H200, quick, hand_over=2.0).rate == pytest.approx(5.0, rel=1e-3)


def test_the_table_has_every_gpu_and_the_ceiling_is_the_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_model, "BEFORE", {"H200": 400.0})
    one = counts(vision=Segment(1, 0, Counter({Kernel("mm", 1e13, 1e9): 1})))
    found = [model(gpu, one) for gpu in GPUS]
    assert 1000 < found[0].most < 1100  # images/s, were all products the best ones
    lines = table(found)
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {gpu.name}" for gpu in GPUS]
    assert "| 400 |" in lines[2]
    assert "39% → " in lines[2] or "38% → " in lines[2]
    assert "- vision: " in explain(found[0])[1]


def test_a_measurement_is_set_against_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = counts(vision=Segment(1, 0, Counter({Kernel("mm", 1e14, 1e9): 1})))
    monkeypatch.setattr(gpu_counts, "count", lambda gpu: one)
    monkeypatch.setattr(gpu_counts.pretend, "what_is_missing", lambda: None)
    expected = model(replace(H200, products=H200.products / 2), one).rate
    measured = {
        "machine": {
            "name": "NVIDIA H200",
            "cores": 16,
            "flops": {"bfloat16": H200.products / 2},
            "bandwidth": H200.bandwidth,
        },
        "dtype": "bfloat16",
        "results": [
            {"peer": "docs", "images_per_second": 1.0},
            {"peer": "ours", "images_per_second": expected},
        ],
        "share_of_peak": 0.5,
    }
    file = tmp_path / "gpu-results.json"
    file.write_text(json.dumps(measured))
    assert gpu_model.main(["--measured", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith("| model, rates of the table")
    assert lines[3].endswith("| 0.50 |")
    assert lines[4].endswith("| 1.00 |")
    measured["machine"] = {"name": "another"}
    with pytest.raises(SystemExit, match="no rates are known"):
        compare(measured)
