"""A retrieval model beside one that writes: transformers' scores, and one pass of the encoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.models.blip_2.modeling_blip_2 import Blip2ForImageTextRetrieval

from blip2cli.errors import ModelError, OptionError
from blip2cli.images.preprocess import normalize
from blip2cli.model.checkpoint.ranker import RankerSpec
from blip2cli.model.checkpoint.resolve import resolve
from blip2cli.model.load_ranked import load_ranked
from blip2cli.model.loading.shared_vision import same_vision
from blip2cli.model.placement.batch_size import auto_batch_size, batch_threads, model_memory
from blip2cli.model.ranker import Ranker
from blip2cli.model.retrieval import Pair
from blip2cli.model.wrapper import Blip2
from blip2cli.options import Dtype, ModelOptions, RankBy
from blip2cli.system.library_logging import silence_libraries
from tests.model.conftest import images

TEXTS = ("two cats and a pizza on a blue background", "a tree", "", "a tree")
IMAGES = 5
PAIRS = [Pair(image, text) for image in range(IMAGES) for text in TEXTS]


def options(model: str | Path, dtype: Dtype = "float32") -> ModelOptions:
    return ModelOptions(str(model), device="cpu", dtype=dtype)


@pytest.fixture(scope="module")
def sharing() -> Blip2:
    return load_ranked(options("tiny"), None, RankerSpec("tiny-itm"))


@pytest.fixture(scope="module")
def apart(checkpoint: Path, retrieval_checkpoint: Path) -> Blip2:
    """Random models, each with a vision encoder of its own."""
    return load_ranked(options(checkpoint), None, RankerSpec(str(retrieval_checkpoint)))


def ranker(model: Blip2) -> Ranker:
    assert model.ranker is not None
    return model.ranker


@torch.inference_mode()
def their_scores(directory: Path, values: Tensor, codec: Any, by: RankBy) -> list[float]:
    """Those of transformers, one image and one text at a time, for ``PAIRS``."""
    with silence_libraries():
        theirs = Blip2ForImageTextRetrieval.from_pretrained(directory).eval()
    token = theirs.config.image_token_index
    front = [token] * theirs.config.num_query_tokens if token is not None else []
    scores = []
    for pair in PAIRS:
        ids = torch.tensor([[*front, *codec.encode(pair.text)]])
        logits = theirs(
            pixel_values=values[pair.image, None],
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            use_image_text_matching_head=by == "match",
        ).logits_per_image
        scores.append(logits.softmax(1)[0, 1].item() if by == "match" else logits.item())
    return scores


@pytest.mark.parametrize("by", ["match", "contrast"])
@pytest.mark.parametrize("fixture", ["sharing", "apart"])
def test_scores_equal_Blip2ForImageTextRetrieval(  # noqa: N802
    by: RankBy, fixture: str, retrieval_checkpoint: Path, request: pytest.FixtureRequest
) -> None:
    model: Blip2 = request.getfixturevalue(fixture)
    ours = ranker(model)
    assert ours.shares_vision == (fixture == "sharing")
    directory = resolve("tiny-itm").path if fixture == "sharing" else retrieval_checkpoint
    pixels = images(IMAGES, model.spec.height)
    scores = ours.scores(pixels, model.features(pixels), PAIRS, by)
    values = normalize(pixels, ours._wrapper.spec, torch.float32)
    wanted = their_scores(directory, values, ours._wrapper.codec, by)
    assert scores == pytest.approx(wanted, abs=1e-5)
    if by == "match":  # of patches that are no picture, whatever is said is improbable
        assert scores == pytest.approx(wanted, rel=1e-3)
    assert max(scores) - min(scores) > 1e-4


@pytest.mark.parametrize("fixture", ["sharing", "apart"])
def test_a_score_depends_on_neither_images_nor_texts_beside_it(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    model: Blip2 = request.getfixturevalue(fixture)
    pixels = images(IMAGES, model.spec.height)
    features = model.features(pixels)
    for by in ("match", "contrast"):
        together = ranker(model).scores(pixels, features, PAIRS, by)
        for pair, score in zip(PAIRS, together, strict=True):
            one = pixels[pair.image, None]
            single = ranker(model).scores(one, model.features(one), [Pair(0, pair.text)], by)
            assert single == [score]


def counted(model: Blip2, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many images went through any vision encoder."""
    seen: list[int] = []
    nets: list[Any] = [model.model, ranker(model).model]
    for vision in {id(net.vision_model): net.vision_model for net in nets}.values():
        encoder: nn.Module = vision.encoder
        real = encoder.forward
        monkeypatch.setattr(encoder, "forward", lambda x, real=real: seen.append(len(x)) or real(x))
    return lambda: sum(seen)


@pytest.mark.parametrize(("fixture", "passes"), [("sharing", 1), ("apart", 2)])
@pytest.mark.parametrize("by", ["match", "contrast"])
def test_the_vision_encoder_runs_once_where_both_have_the_same(
    fixture: str,
    passes: int,
    by: RankBy,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Blip2 = request.getfixturevalue(fixture)
    count = counted(model, monkeypatch)
    pixels = images(IMAGES, model.spec.height)
    ranker(model).scores(pixels, model.features(pixels), PAIRS, by)
    assert count() == passes * IMAGES
    own = ranker(model).model.vision_model
    assert (own is model.model.vision_model) == (passes == 1)  # and is in memory once


def test_encoders_are_compared_number_by_number(tmp_path: Path) -> None:
    tiny, itm = resolve("tiny"), resolve("tiny-itm")
    assert same_vision(tiny, itm, torch.float32)
    assert same_vision(tiny, resolve("tiny-t5"), torch.bfloat16)
    copy = tmp_path / "tiny"
    shutil.copytree(tiny.path, copy)
    assert same_vision(resolve(str(copy)), itm, torch.float32)
    file = copy / "vision.safetensors"
    weights = load_file(file)
    name = "vision_model.encoder.layers.1.mlp.fc2.weight"
    weights[name][3, 4] += 0.5
    save_file(weights, file)
    assert not same_vision(resolve(str(copy)), itm, torch.float32)
    model = load_ranked(options(copy), None, RankerSpec("tiny-itm"))
    assert not ranker(model).shares_vision
    assert "another vision encoder" in model.reason


def test_other_normalisation_is_another_encoder(tmp_path: Path) -> None:
    copy = tmp_path / "tiny"
    shutil.copytree(resolve("tiny").path, copy)
    file = copy / "processor_config.json"
    processor = json.loads(file.read_text())
    processor["image_processor"]["image_mean"] = [0.5, 0.5, 0.5]
    file.write_text(json.dumps(processor))
    assert not same_vision(resolve(str(copy)), resolve("tiny-itm"), torch.float32)


def test_images_of_two_sizes_are_refused(checkpoint: Path) -> None:
    with pytest.raises(OptionError, match="reads images of 32x32 pixels and tiny-itm of"):
        load_ranked(options(checkpoint), None, RankerSpec("tiny-itm"))


def test_precision_is_that_of_the_model_that_writes() -> None:
    model = load_ranked(options("tiny", "bfloat16"), None, RankerSpec("tiny-itm"))
    assert ranker(model).model.dtype == torch.bfloat16
    assert ranker(model).shares_vision
    assert "bfloat16" in model.reason
    assert model.reason.endswith("ranked by tiny-itm (the same vision encoder, run once)")


def test_a_text_too_long_for_it_is_compared_by_its_beginning(sharing: Blip2) -> None:
    pixels = images(1, sharing.spec.height)
    pairs = [Pair(0, "a tree " * count) for count in (400, 500)]
    one, other = ranker(sharing).scores(pixels, sharing.features(pixels), pairs, "match")
    assert one == other


def test_batches_and_threads_reckon_with_both(sharing: Blip2, checkpoint: Path) -> None:
    assert batch_threads(sharing) == torch.get_num_threads()
    assert auto_batch_size(sharing) == 64
    single = model_memory(sharing.model)
    plain = Blip2.load(options("tiny"))
    assert model_memory(plain.model) == single
    plain.ranker = ranker(sharing)
    assert auto_batch_size(plain) == 64


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("tiny-t5", OptionError, "tiny-t5 is a model that writes.*takes a retrieval model"),
        ("nowhere", ModelError, "nowhere is neither an embedded model"),
    ],
)
def test_what_cannot_rank_is_one_sentence(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        RankerSpec(name).local(options("tiny")).found()
    assert raised.value.field == "rank_with"  # type: ignore[attr-defined]


def test_layers_that_are_placed_cannot_be_ranked_beside() -> None:
    placed = replace(options("tiny"), device="auto", device_map="auto")
    with pytest.raises(OptionError, match="layers of tiny are to be placed one by one"):
        RankerSpec("tiny-itm").local(placed)
