"""Which devices run a job together, and what the settings say of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2cli.errors import ModelError, OptionError
from blip2cli.options import ModelOptions, RayOptions, RunOptions
from blip2cli.pipeline.compute.base import Ready
from blip2cli.pipeline.compute.choose import who_computes
from blip2cli.pipeline.compute.devices import check_devices, devices, several
from blip2cli.pipeline.compute.processes import WorkerProcesses
from blip2cli.pipeline.compute.ray_actors import RayActors
from blip2cli.pipeline.compute.this_process import ThisProcess
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.plan import Plan
from blip2cli.pipeline.settings import run_settings, threads_before
from blip2cli.pipeline.text_items import TextItems
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.embed_texts import EmbedTextsTask
from blip2cli.tasks.texts import from_lines


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("cpu,cuda:0", "unlike devices"),
        ("cuda:0,mps", "unlike devices"),
        ("cpu,", "an empty name or a space"),
        ("cpu, cpu", "an empty name or a space"),
        ("cpu,auto", "auto chooses one device"),
        ("cuda:all,cuda:0", "names all GPUs"),
    ],
)
def test_devices_that_do_not_go_together_are_refused(device: str, sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        check_devices(device)


def test_devices_alike_are_taken() -> None:
    for device in ("auto", "cpu", "cuda:1", "cpu,cpu", "cuda:0,cuda:1", "cuda:all"):
        check_devices(device)
    assert not any(map(several, ("auto", "cpu", "cuda:1")))


def test_all_gpus_are_those_that_torch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="torch sees no GPU"):
        devices("cuda:all")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices("cuda:all") == ("cuda:0", "cuda:1", "cuda:2")


@pytest.mark.parametrize(("gpus", "kind"), [(1, ThisProcess), (2, WorkerProcesses)])
def test_one_gpu_is_run_by_this_process(
    gpus: int, kind: type[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    options = RunOptions(model=ModelOptions("tiny", device="cuda:all"))
    job: Job[Any] = Job(ImageItems(), CaptionTask(), options)
    compute = who_computes(job, Plan(iter(()), (), 0), False, lambda event: None)
    assert type(compute) is kind


def test_actors_of_ray_find_directories_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "lora", "half", "tiny"):
        (tmp_path / name).mkdir()
    adapters = "lora", "half@0.5", "owner/name@0.5"

    def made(model: str) -> RayActors:
        options = RunOptions(model=ModelOptions(model, adapter=adapters), ray=RayOptions(ray=True))
        job: Job[Any] = Job(ImageItems(), CaptionTask(), options)
        compute = who_computes(job, Plan(iter(()), (), 0), False, lambda event: None)
        assert isinstance(compute, RayActors)
        return compute

    found = made("mine")
    here = [str(tmp_path / name) for name in ("mine", "lora", "half")]
    assert found._paths == here
    assert found._spec.model.model == here[0]
    assert found._spec.model.adapter == (here[1], f"{here[2]}@0.5", adapters[2])
    assert made("tiny")._spec.model.model == "tiny"  # embedded, whatever the folder holds


def test_texts_are_embedded_on_one_device() -> None:
    options = RunOptions(model=ModelOptions("tiny-itm", device="cpu,cpu"))
    job = Job(TextItems(from_lines(["a cat"])), EmbedTextsTask(), options, stdout=io.BytesIO())
    with pytest.raises(OptionError, match="texts are embedded on one device; name one"):
        job.check()


def test_settings_hold_the_threads_where_rows_depend_on_them() -> None:
    ready = Ready(CaptionTask(), "m", "cpu", "bfloat16", "why", threads=3)
    options = RunOptions(model=ModelOptions("m", device="cpu,cpu"))
    settings = run_settings(CaptionTask(), options, ready)
    assert settings["threads"] == 3
    assert "device" not in settings
    assert "threads" not in run_settings(CaptionTask(), options)

    class Resumed:
        class rows:  # noqa: N801
            class settings:  # noqa: N801
                rows = settings

    resumed: Any = Resumed
    assert threads_before(resumed) == 3
    assert threads_before(None) is None
