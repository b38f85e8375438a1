"""Layers on disk: rows are the same bits as those of a model in memory."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip2cli.errors import ModelError, OptionError
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.layers import packed_linear
from blip2cli.model.layers.linear import Linear
from blip2cli.model.layers.streamed import MappedFetcher
from blip2cli.model.nets.blip2 import build
from blip2cli.model.placement.batch_size import auto_batch_size, batch_threads
from blip2cli.model.placement.device_map import always_in_memory
from blip2cli.model.placement.dtype import DTYPES
from blip2cli.model.retrieval import Pair
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, Dtype, ModelOptions
from tests.checkpoints import tiny_random_itm
from tests.model.conftest import images

PIXELS = images(11)
TEXTS = (None, "a photo of", "Question: how many cats are there? Answer:")
PROMPTS = [
    Prompt(image=image, text=text, name=str(image))
    for image in range(len(PIXELS))
    for text in TEXTS
]


@pytest.fixture(scope="session")
def itm_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_random_itm(tmp_path_factory.mktemp("checkpoints") / "itm")


def load(directory: Path, dtype: Dtype, **options: str) -> Blip2:
    return Blip2.load(ModelOptions(str(directory), device="cpu", dtype=dtype, **options))  # type: ignore[arg-type]


def on_disk(directory: Path, dtype: Dtype = "float32", folder: Path | None = None) -> Blip2:
    """The model with all layers on disk."""
    with torch.device("meta"):
        model = build(inspect_checkpoint(directory).model_config)
    stays, layer = always_in_memory(model, DTYPES[dtype])
    options = {} if folder is None else {"offload": str(folder)}
    return load(directory, dtype, max_memory=f"cpu={stays + 2 * layer}", **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["opt", "t5", "itm"])
def test_rows_are_the_same_bits(
    name: str, dtype: Dtype, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    directory = request.getfixturevalue(f"{name}_directory")
    whole, streamed = load(directory, dtype), on_disk(directory, dtype, tmp_path)
    assert "on disk" in streamed.reason
    assert "on cpu" not in streamed.reason
    features, ours = whole.features(PIXELS), streamed.features(PIXELS)
    for field in dataclasses.fields(features):
        assert torch.equal(getattr(features, field.name), getattr(ours, field.name))
    if not whole.writes:
        assert whole.retrieval is not None
        assert streamed.retrieval is not None
        pairs = [Pair(n, t) for n in range(len(PIXELS)) for t in ("two cats", "a red car on it")]
        for method in ("contrastive_scores", "matching_logits", "multimodal"):
            expected = getattr(whole.retrieval, method)(features, pairs)
            assert torch.equal(getattr(streamed.retrieval, method)(ours, pairs), expected)
        return
    greedy, captions = DecodeOptions(max_new_tokens=8), PROMPTS[:: len(TEXTS)]
    assert streamed.generate(ours, captions, greedy) == whole.generate(features, captions, greedy)
    for options in ({}, {"num_beams": 3}, {"temperature": 1.0}):
        decoding = DecodeOptions(max_new_tokens=8, **options)  # type: ignore[arg-type]
        expected = whole.generate(features, PROMPTS, decoding)
        assert streamed.generate(ours, PROMPTS, decoding) == expected
    choices = [["two cats", "a dog", "three birds"]] * len(PROMPTS)
    assert streamed.score(ours, PROMPTS, choices) == whole.score(features, PROMPTS, choices)
    texts = ["two cats", "a dog on it"]
    for one, other in zip(streamed.text_states(texts), whole.text_states(texts), strict=True):
        assert torch.equal(one, other)


def test_a_layer_is_brought_in_once_for_a_batch(
    opt_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = on_disk(opt_directory)
    started: Counter[Linear] = Counter()
    start = MappedFetcher.start

    def counted(self: MappedFetcher, layer: Linear) -> torch.Tensor:
        started[layer] += 1
        return start(self, layer)

    monkeypatch.setattr(MappedFetcher, "start", counted)
    features = model.features(images(150))  # chunks of far fewer
    prompts = [Prompt(image=image, text=None, name=str(image)) for image in range(150)]
    texts = model.generate(features, prompts, DecodeOptions(max_new_tokens=5, min_new_tokens=5))
    assert {len(text.tokens) for (text,) in texts} == {5}
    of_vision = {e for e in model.model.vision_model.modules() if isinstance(e, Linear)}
    # Once more for the layer behind, where nothing followed.
    assert {started[layer] for layer in of_vision if layer.stored} <= {1, 2}
    of_opt = {e for e in model.model.language_model.modules() if isinstance(e, Linear)}
    passes = [started[layer] for layer in of_opt if layer.stored]
    assert passes
    assert set(passes) <= {6, 7}  # the images, and five steps of all sequences
    in_memory = [e for e in of_opt | of_vision if e.stored and not e.matrix.is_meta]
    assert not in_memory


def test_matrices_are_packed_where_plain_ones_give_other_bits(
    opt_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(opt_directory, "float32")
    monkeypatch.setattr(packed_linear, "_plain_is_equal", lambda layer: False)
    packed = on_disk(opt_directory)
    features, ours = whole.features(PIXELS), packed.features(PIXELS)
    captions = PROMPTS[:: len(TEXTS)]
    options = DecodeOptions(max_new_tokens=4)
    expected = whole.generate(features, captions, options)
    assert packed.generate(ours, captions, options) == expected


def test_threads_share_layers(opt_directory: Path) -> None:
    whole, streamed = load(opt_directory, "float32"), on_disk(opt_directory)
    expected = whole.features(PIXELS).query_output
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: streamed.features(PIXELS).query_output, range(9)))
    assert all(torch.equal(each, expected) for each in found)


def test_batches_are_large_and_one_at_a_time(opt_directory: Path) -> None:
    model = on_disk(opt_directory)
    assert auto_batch_size(model) == 256
    assert batch_threads(model) == 1


def test_layers_are_converted_once(opt_directory: Path, tmp_path: Path) -> None:
    folder = tmp_path / "layers"
    on_disk(opt_directory, "bfloat16", folder)
    files = sorted(folder.rglob("*.safetensors"))
    assert len(files) == 6
    written = [file.stat().st_mtime_ns for file in files]
    files[0].unlink()  # as where a run was killed
    on_disk(opt_directory, "bfloat16", folder)
    assert sorted(folder.rglob("*")) == sorted([files[0].parent, *files])
    assert [file.stat().st_mtime_ns for file in files][1:] == written[1:]
    whole = [file.read_bytes() for file in files]
    files[0].write_bytes(whole[0][:100])  # cut short
    files[1].write_bytes(whole[2])  # of another layer
    on_disk(opt_directory, "bfloat16", folder)
    assert [file.read_bytes() for file in files] == whole


def test_a_mapped_checkpoint_needs_no_folder(opt_directory: Path, tmp_path: Path) -> None:
    on_disk(opt_directory, "float32", tmp_path / "layers")
    assert not (tmp_path / "layers").exists()


def test_conversion_needs_a_folder(opt_directory: Path) -> None:
    with pytest.raises(OptionError, match=r"bfloat16.*with offload"):
        on_disk(opt_directory, "bfloat16")


def test_a_folder_that_cannot_be_written(opt_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="another folder with offload"):
        on_disk(opt_directory, "bfloat16", tmp_path / "file")


def test_another_checkpoint_has_layers_of_its_own(opt_directory: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(opt_directory, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    name = "language_model.model.decoder.layers.0.fc1.weight"
    weights[name] = weights[name] + 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    for directory in (opt_directory, copy):
        on_disk(directory, "bfloat16", tmp_path / "layers")
    assert len(os.listdir(tmp_path / "layers")) == 2


def test_numbers_that_are_none_are_found_on_disk(opt_directory: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(opt_directory, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    weights["language_model.model.decoder.layers.1.fc2.weight"][0, 0] = torch.nan
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.fc2"):
        on_disk(copy)
