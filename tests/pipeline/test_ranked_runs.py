"""Runs with a second model that ranks: the same bytes whoever computes; refused what differs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip2cli import Blip2
from blip2cli.errors import OptionError, OutputError
from blip2cli.model.checkpoint.ranker import RankerSpec
from blip2cli.model.checkpoint.resolve import resolve
from blip2cli.model.load_ranked import load_ranked
from blip2cli.model.ranker import Ranker
from blip2cli.options import (
    CalibrationOptions,
    DecodeOptions,
    LoaderOptions,
    ModelOptions,
    OutputOptions,
    RankOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.events import Event, Halved, Summary
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import read_settings
from blip2cli.tasks.calibration import from_options
from blip2cli.tasks.caption import CaptionTask
from tests.pipeline.helpers import read

SEVERAL = DecodeOptions(max_new_tokens=8, num_beams=3, num_captions=3)
RANKED = RankOptions("tiny-itm", min_match=0.5)


def job(source: Path, out: Path, rank: RankOptions = RANKED, **more: Any) -> Job[Any]:
    device = more.pop("device", "cpu")
    ranker = None if rank.rank_with is None else RankerSpec(rank.rank_with)
    options = RunOptions(
        SourceOptions((str(source),), limit=more.pop("limit", None), shard=more.pop("shard", None)),
        ModelOptions("tiny", device=device),
        LoaderOptions(batch_size=more.pop("batch", 2), workers=0),
        OutputOptions(str(out), resume=True),
    )
    return Job(ImageItems(), CaptionTask(decode=SEVERAL, rank=rank), options, ranker=ranker, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """The output of one process in one go."""
    out = tmp_path_factory.mktemp("whole") / "out.jsonl"
    assert run(job(images, out)).exit_code == 0
    return out


def test_workers_with_devices_write_the_bytes_of_one_process(
    images: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    run(job(images, out, device="cpu,cpu", batch=3))
    assert out.read_bytes() == whole.read_bytes()


def test_resumed_pieces_are_the_whole(images: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run(job(images, out, limit=2, batch=1))
    assert len(read(out)) == 2
    run(job(images, out, batch=5))
    assert out.read_bytes() == whole.read_bytes()
    shares = [tmp_path / f"{n}.jsonl" for n in (1, 2)]
    for number, share in enumerate(shares, 1):
        run(job(images, share, shard=f"{number}/2"))
    rows = [row for share in shares for row in read(share)]
    assert sorted(rows, key=str) == sorted(read(whole), key=str)


def copied(folder: Path, bias: float = 0.0) -> Path:
    """A copy of tiny-itm, with one bias changed."""
    shutil.copytree(resolve("tiny-itm").path, folder)
    shutil.copy(resolve("tiny").path / "vision.safetensors", folder)
    file = folder / "language.safetensors"
    weights = load_file(file)
    weights["itm_head.bias"] += bias
    save_file(weights, file)
    return folder


def test_what_ranks_is_compared_when_an_output_is_gone_on_with(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    names = [str(copied(tmp_path / f"itm-{n}")) for n in (1, 2)]
    first, same = (replace(RANKED, rank_with=name) for name in names)
    run(job(images, out, first, limit=1))
    settings = read_settings(OutputPaths.of(str(out)))
    assert settings is not None
    assert settings.weights is not None
    assert len(settings.weights.split("+")) == 2
    assert [settings.rows[name] for name in ("rank_with", "rank_by", "min_match")] == [
        *(names[0], "match", 0.5)
    ]
    before = out.read_bytes()
    for rank, message in (
        (RankOptions(), "with rank_with .*itm-1, not unset"),
        (replace(first, min_match=0.6), "with min_match 0.5, not 0.6"),
        (RankOptions(names[0], "contrast"), "with rank_by match, not contrast"),
        (RANKED, "with rank_with .*itm-1, not tiny-itm"),
    ):
        with pytest.raises(OutputError, match=message):
            run(job(images, out, rank))
    assert out.read_bytes() == before
    # The same weights under another name are the same model; others under its name are not.
    run(job(images, out, same, limit=2))
    assert len(read(out)) == 2
    shutil.rmtree(names[0])
    copied(Path(names[0]), 0.25)
    with pytest.raises(
        OutputError, match=r"other weights, tokenizer or configuration than .*itm-1"
    ):
        run(job(images, out, first))


def test_an_output_without_ranking_is_not_gone_on_with_ranked(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run(job(images, out, RankOptions(), limit=1))
    with pytest.raises(OutputError, match="with rank_with unset, not tiny-itm"):
        run(job(images, out))


def test_memory_that_runs_out_while_ranking_halves_the_batch(
    images: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Ranker.scores

    def limited(self: Ranker, pixels: torch.Tensor, *rest: Any) -> list[float]:
        if len(pixels) > 2:
            torch.empty(1 << 60, dtype=torch.uint8)
        return real(self, pixels, *rest)

    monkeypatch.setattr(Ranker, "scores", limited)
    out = tmp_path / "out.jsonl"
    events: list[Event] = []
    run(job(images, out, batch=5), events.append)
    assert out.read_bytes() == whole.read_bytes()
    assert any(isinstance(event, Halved) for event in events)


def test_a_model_that_cannot_rank_is_refused_before_anything_is_loaded(
    images: Path, tmp_path: Path
) -> None:
    def unwanted(options: ModelOptions) -> Any:
        raise AssertionError("the model was loaded")

    with pytest.raises(OptionError, match="tiny-t5 is a model that writes"):
        run(job(images, tmp_path / "out.jsonl", RankOptions("tiny-t5"), load=unwanted))


def test_a_run_with_a_model_in_memory_ranks_by_the_one_beside_it(
    images: Path, whole: Path, tmp_path: Path
) -> None:
    model = load_ranked(ModelOptions("tiny", device="cpu"), None, RankerSpec("tiny-itm"))
    out = tmp_path / "out.jsonl"
    summary: Summary = run(job(images, out, load=lambda options: model))
    assert summary.done == 5
    assert out.read_bytes() == whole.read_bytes()
    assert json.loads(out.read_text().splitlines()[0])["candidates"][0]["match"] >= 0


def test_a_calibration_is_that_of_both_models(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run(job(images, out, RankOptions("tiny-itm"), limit=1))
    settings = read_settings(OutputPaths.of(str(out)))
    assert settings is not None
    assert settings.weights is not None
    first = settings.weights.partition("+")[0]
    for weights, rank, fits in (
        (settings.weights, RANKED, True),
        (first, RANKED, False),
        (settings.weights, RankOptions(), False),
        (first, RankOptions(), True),
    ):
        found = {
            "format": 1, "kind": "texts", "norm": "logprob_mean", "match": False,
            "task": "caption", "weights": weights, "temperature": None, "questions": {},
            "curve": {"method": "platt", "slope": 1.0, "intercept": 3.0},
            "thresholds": [[0.9, 300, 300]], "labels": 300,
        }  # fmt: skip
        file = tmp_path / "calibration.json"
        file.write_text(json.dumps(found))
        made = job(images, tmp_path / f"{fits}{rank.rank_with}.jsonl", rank)
        calibration = from_options(CalibrationOptions(str(file)))
        made = replace(made, task=replace(made.task, calibration=calibration))
        loaded = Blip2.load("tiny", device="cpu", rank_with=rank.rank_with)
        caption = partial(loaded.caption, next(images.glob("*.*")), calibration=file)
        if not fits:
            for use in (partial(run, made), caption):
                with pytest.raises(OptionError, match="was made from rows of another model"):
                    use()
            continue
        run(made)
        assert 0 < caption()[0]["confidence"] < 1
        for row in read(tmp_path / f"{fits}{rank.rank_with}.jsonl"):
            assert 0 < row["confidence"] < 1
