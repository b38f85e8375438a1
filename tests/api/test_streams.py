"""Images as generators, batches and columns: memory stays flat, and names are counted through."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blip2cli import Blip2
from blip2cli.errors import OptionError
from blip2cli.tasks.caption import CaptionTask
from tests.checkpoints import tiny_random_opt

SHORT = {"max_new_tokens": 5}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Blip2:
    directory = tiny_random_opt(tmp_path_factory.mktemp("checkpoints") / "opt")
    return Blip2.load(str(directory), device="cpu", batch_size=2)


def pixels(number: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(number).integers(0, 255, (30, 40, 3), np.uint8)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    names = [str(tmp_path / f"{number}.png") for number in range(3)]
    for number, name in enumerate(names):
        Image.fromarray(pixels(number)).save(name)
    return names


def captions(rows: list[dict[str, Any]]) -> list[str]:
    return [row["caption"] for row in rows]


def test_of_a_generator_two_batches_at_most_are_in_memory(model: Blip2) -> None:
    gone: list[int] = []
    most = 0

    def drawn(count: int) -> Iterator[Image.Image]:
        nonlocal most
        gone.clear()
        for number in range(count):
            picture = Image.fromarray(pixels(number % 5))
            weakref.finalize(picture, gone.append, number)
            most = max(most, number + 1 - len(gone))
            yield picture
            del picture

    rows = model.caption(drawn(20), **SHORT)
    assert [row["file_name"] for row in rows] == [f"image {number}" for number in range(20)]
    assert most <= 2 * model.batch_size + 1
    most = 0
    streamed = [row for some in model.batches(drawn(20)) for row in model.caption(some, **SHORT)]
    assert streamed == rows
    assert most <= 2 * model.batch_size + 1


def test_a_batch_may_be_used_several_times(model: Blip2, pictures: list[str]) -> None:
    for some in model.batches(iter(pictures)):
        assert len(model.caption(some, **SHORT)) == len(model.embed(some)) == len(some)
    assert [len(some) for some in model.batches(pictures)] == [2, 1]


def test_tensors_are_as_good_as_arrays(model: Blip2) -> None:
    arrays = np.stack([pixels(number) for number in range(3)])
    expected = model.caption(arrays, **SHORT)
    tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    assert model.caption(tensors, **SHORT) == expected
    assert model.caption(list(tensors), **SHORT) == expected
    assert model.caption(tensors[0], **SHORT) == expected[:1]
    grey = tensors[0, 0]
    assert model.caption(grey, **SHORT) == model.caption(grey[None], **SHORT)
    for wrong in (tensors[0] / 255, tensors[0].permute(1, 2, 0), tensors[0, :2]):
        with pytest.raises(OptionError, match=r"Image 0 is a tensor of torch\.\w+ \["):
            model.caption([wrong], **SHORT)


def test_undecoded_values_of_datasets_are_images(model: Blip2, pictures: list[str]) -> None:
    expected = model.caption(pictures, **SHORT)
    data = Path(pictures[0]).read_bytes()
    values = [{"bytes": data, "path": None}, {"bytes": data, "path": "a.png"}]
    rows = model.caption([*values, {"bytes": None, "path": pictures[1]}], **SHORT)
    assert [row["file_name"] for row in rows] == ["image 0", "a.png", pictures[1]]
    assert captions(rows) == [captions(expected)[number] for number in (0, 0, 1)]
    assert len(model.caption(values[0], **SHORT)) == 1
    with pytest.raises(OptionError, match="neither path nor bytes"):
        model.caption([{"image": values[0]}])


def test_map_of_datasets_adds_captions(model: Blip2, pictures: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        made = datasets.Dataset.from_dict({"image": pictures, "id": [7, 8, 9]})
        dataset = made.cast_column("image", datasets.Image())
        mapped = dataset.map(model.caption_batch, batched=True)
        assert mapped.column_names == ["image", "id", "caption", "logprob", "flag"]
        expected = model.caption(pictures)
        assert list(mapped["caption"]) == captions(expected)
        assert list(mapped["logprob"]) == [row["logprob"] for row in expected]
        drawn = {"temperature": 1.0, "errors": "inline", **SHORT}
        options = {"batched": True, "batch_size": 2, "fn_kwargs": drawn}
        files = dataset.cast_column("image", datasets.Image(decode=False))
        mapped = files.map(model.caption_batch, **options)
        assert list(mapped["caption"]) == captions(model.caption(pictures, **drawn))
        assert list(mapped["error"]) == ["", "", ""]
        memory = [Image.open(name).copy() for name in pictures]  # they come from no file
        mapped = dataset.with_format("numpy").map(model.caption_batch, with_indices=True, **options)
        assert list(mapped["caption"]) == captions(model.caption(memory, **drawn))
        for column in (dataset["image"], dataset.with_format("torch")["image"]):
            assert captions(model.caption(column)) == captions(expected)
    with pytest.raises(OptionError, match="image_column picture: there is no such column; there a"):
        model.caption_batch({"image": []}, image_column="picture")
    with pytest.raises(OptionError, match="a batch has a list of them; give map batched=True"):
        model.caption_batch({"image": Image.new("RGB", (4, 4))})


def test_threads_and_coroutines_share_a_model(
    model: Blip2, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiff = str(Path(pictures[0]).with_suffix(".tiff"))
    Image.open(pictures[0]).save(tiff)
    asked = [[tiff, *pictures][number % 4 :] for number in range(12)]
    expected = [model.caption(some, **SHORT) for some in asked]
    start = threading.Barrier(4)
    rows, running = CaptionTask.rows, []

    def alone(*arguments: Any) -> Any:
        running.append(threading.get_ident())
        time.sleep(0.01)  # whoever does not wait for its turn comes meanwhile
        assert running == [threading.get_ident()]
        found = rows(*arguments)
        running.clear()
        return found

    monkeypatch.setattr(CaptionTask, "rows", alone)

    def caption(some: list[str]) -> Any:
        start.wait(60)
        return model.caption(some, **SHORT)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(caption, asked)) == expected

    async def together() -> list[Any]:
        return await asyncio.gather(
            *(asyncio.to_thread(model.caption, some, **SHORT) for some in asked)
        )

    assert asyncio.run(together()) == expected


def test_progress_is_a_bar(
    model: Blip2, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    model.caption(pictures, progress=True, **SHORT)
    assert "3/3" in capsys.readouterr().err
    model.embed((name for name in pictures), progress=True)
    assert "3 images" in capsys.readouterr().err
    model.ask(pictures, "what?", **SHORT)
    assert capsys.readouterr().err == ""


def test_a_model_says_what_it_is(model: Blip2) -> None:
    assert repr(model).endswith("opt on cpu in float32, batch size 2>")


@pytest.mark.external
def test_worker_processes_load_their_own(pictures: list[str]) -> None:
    model = Blip2.load("tiny", device="cpu")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rows = pool.map(model.caption, [[name] for name in pictures])
    assert [row for some in rows for row in some] == model.caption(pictures)
    assert rows[0].as_objects()[0].caption == rows[0][0]["caption"]


@pytest.mark.external
def test_processes_of_datasets_load_their_own(pictures: list[str]) -> None:
    script = """
import sys, datasets
from blip2cli import Blip2
model = Blip2.load("tiny", device="cpu")
expected = [row["caption"] for row in model.caption(sys.argv[1:])]
images = datasets.Dataset.from_dict({"image": sys.argv[1:]})
mapped = images.map(model.caption_batch, batched=True, num_proc=2)
assert list(mapped["caption"]) == expected
"""
    threads = os.environ | {"OMP_NUM_THREADS": "4"}  # of which a forked process has none
    subprocess.run([sys.executable, "-c", script, *pictures], env=threads, check=True, timeout=300)
