"""Images against texts, held against transformers' own retrieval classes."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.blip_2.modeling_blip_2 import (
    Blip2ForImageTextRetrieval,
)
from transformers.models.blip_2.processing_blip_2 import Blip2Processor

from blip2cli.errors import OptionError
from blip2cli.images.preprocess import normalize
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.families import RETRIEVAL
from blip2cli.model.retrieval import Pair, Retrieval
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.vision.features import ImageFeatures
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    DecodeOptions,
    EmbedOptions,
    Kind,
    ModelOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.system.library_logging import silence_libraries
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.questions import from_texts
from blip2cli.tasks.texts import from_lines
from tests.checkpoints import QUERIES, tiny_random_itm
from tests.model.conftest import Pair as Both
from tests.model.conftest import images

TEXTS = (
    "two cats and a pizza on a blue background",
    "a tree",
    "a car",
    "",
    "a photo of a house and four birds, left of the dog",
)
IMAGES = 5


@dataclass(frozen=True)
class Sides:
    """Our model and transformers' of one directory, and some images."""

    directory: Path
    ours: Blip2
    theirs: Blip2ForImageTextRetrieval
    tokenizer: Any
    pixels: Tensor

    @property
    def retrieval(self) -> Retrieval:
        assert self.ours.retrieval is not None
        return self.ours.retrieval

    @property
    def values(self) -> Tensor:
        return normalize(self.pixels, self.ours.spec, torch.float32)

    def ids(self, *texts: str) -> dict[str, Tensor]:
        """One text, or several padded, as the documentation's examples encode them."""
        return dict(self.tokenizer(list(texts), padding=True, return_tensors="pt"))


@pytest.fixture(scope="module", params=["image token", "no image token"])
def sides(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sides:
    changes = {} if request.param == "image token" else {"image_token_index": None}
    directory = tiny_random_itm(tmp_path_factory.mktemp("itm") / "model", **changes)
    ours = Blip2.load(ModelOptions(str(directory), device="cpu", dtype="float32"))
    with silence_libraries():
        theirs = Blip2ForImageTextRetrieval.from_pretrained(directory).eval()
        tokenizer = Blip2Processor.from_pretrained(directory).tokenizer
    return Sides(directory, ours, theirs, tokenizer, images(IMAGES))


def their_inputs(sides: Sides, text: str, count: int) -> dict[str, Tensor]:
    """Ids as the processor makes them: image tokens first where the model has such a token."""
    ids = sides.ids(text)
    token = sides.theirs.config.image_token_index
    if token is not None:
        front = torch.full((1, QUERIES), token)
        ids["input_ids"] = torch.cat((front, ids["input_ids"]), 1)
        ids["attention_mask"] = torch.cat((torch.ones_like(front), ids["attention_mask"]), 1)
    return {name: value.expand(count, -1) for name, value in ids.items()}


EVERY = [Pair(image, text) for text in TEXTS for image in range(IMAGES)]


@torch.inference_mode()
def test_scores_equal_Blip2ForImageTextRetrieval(sides: Sides) -> None:  # noqa: N802
    features = sides.ours.features(sides.pixels)
    contrast = sides.retrieval.contrastive_scores(features, EVERY)
    matching = sides.retrieval.matching_logits(features, EVERY)
    for number, text in enumerate(TEXTS):
        rows = slice(number * IMAGES, (number + 1) * IMAGES)
        inputs = {"pixel_values": sides.values, **their_inputs(sides, text, IMAGES)}
        itm = sides.theirs(**inputs, use_image_text_matching_head=True).logits_per_image
        torch.testing.assert_close(matching[rows], itm, rtol=0, atol=1e-5)
        # One text for all: transformers' contrastive path takes a column of texts.
        one = {name: value[:1] for name, value in inputs.items() if name != "pixel_values"}
        itc = sides.theirs(pixel_values=sides.values, **one).logits_per_image
        torch.testing.assert_close(contrast[rows, None], itc, rtol=0, atol=1e-5)
    assert contrast.std() > 0.01
    assert matching.std() > 0.01


@pytest.mark.parametrize(
    ("sides", "threads"), [("image token", 1), ("image token", 2)], indirect=True
)
def test_scores_and_vectors_depend_on_neither_images_nor_texts_beside_them(
    sides: Sides, threads: int
) -> None:
    chance = random.Random(threads)
    # Two threads that share a busy core with others wait for one another: there, fewer pairs.
    every, sizes = (EVERY, (2, 3, 5, 8, 13, 25)) if threads == 1 else (EVERY[::7], (3,))
    whole = sides.ours.features(sides.pixels)
    retrieval = sides.retrieval

    def results(features: ImageFeatures, pairs: list[Pair]) -> list[Tensor]:
        return [
            retrieval.contrastive_scores(features, pairs),
            retrieval.matching_logits(features, pairs),
            retrieval.multimodal(features, pairs),
            retrieval.project_texts([pair.text for pair in pairs]),
            retrieval.project_images(features)[[pair.image for pair in pairs]],
        ]

    alone = {}
    for pair in every:
        single = sides.ours.features(sides.pixels[pair.image : pair.image + 1])
        alone[pair] = [part[0] for part in results(single, [Pair(0, pair.text)])]
    for size in sizes:
        pairs = chance.sample(every, size)
        for got, want in zip(
            zip(*results(whole, pairs), strict=True), (alone[pair] for pair in pairs), strict=True
        ):
            for one, other in zip(got, want, strict=True):
                assert torch.equal(one, other), size


def test_a_text_is_read_once_for_all_batches(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    retrieval = Retrieval(sides.ours.model, sides.ours.codec, cached_texts=len(TEXTS) + 1)
    read: list[str] = []
    real = retrieval.project_texts
    monkeypatch.setattr(retrieval, "project_texts", lambda texts: read.extend(texts) or real(texts))
    features = sides.ours.features(sides.pixels)
    first = retrieval.contrastive_scores(features, EVERY)
    assert sorted(read) == sorted(TEXTS)
    assert torch.equal(retrieval.contrastive_scores(features, EVERY), first)
    assert len(read) == len(TEXTS)
    # The cache is bounded.
    retrieval.contrastive_scores(features, [Pair(0, "a dog"), Pair(0, "a cow"), EVERY[0]])
    assert read[len(TEXTS) :] == ["a dog", "a cow"]
    assert len(retrieval._projected) == 2
    assert torch.equal(retrieval.contrastive_scores(features, EVERY), first)


def test_a_text_too_long_for_the_model_is_refused(sides: Sides) -> None:
    with pytest.raises(
        OptionError, match=r"The text 'tree tree .*…' is 65 tokens long.*room for 64"
    ):
        sides.retrieval.project_texts(["tree", "tree " * 63])


def test_a_retrieval_model_writes_nothing(sides: Sides) -> None:
    assert not sides.ours.writes
    features = sides.ours.features(sides.pixels)
    assert features.language_inputs.shape == (IMAGES, QUERIES, 0)
    with pytest.raises(OptionError, match="is a retrieval model: it compares images with texts"):
        sides.ours.generate(features, [Prompt(0, None, "a")], DecodeOptions())


def test_a_model_that_writes_does_not_compare(opt: Both) -> None:
    assert opt.ours.writes
    assert opt.ours.retrieval is None


@pytest.mark.parametrize("config", [{"architectures": None}, {"architectures": ["Other"]}])
@pytest.mark.parametrize("stored", ["safetensors", "index", "pickle"])
def test_a_retrieval_model_is_told_by_its_weights(
    sides: Sides, tmp_path: Path, config: dict[str, object], stored: str
) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(sides.directory, directory)
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    single = directory / "model.safetensors"
    if stored == "pickle":
        torch.save(sides.theirs.state_dict(), directory / "pytorch_model.bin")
        single.unlink()
    elif stored == "index":
        sides.theirs.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
        single.unlink()
        for shard in (tmp_path / "shards").glob("model*"):
            shutil.copy(shard, directory)
        assert len(list(directory.glob("model-*.safetensors"))) > 1
    assert inspect_checkpoint(directory).family is RETRIEVAL
    model = Blip2.load(ModelOptions(str(directory), device="cpu", dtype="float32"))
    assert model.retrieval is not None


@pytest.mark.parametrize("fixture", ["opt_directory", "t5_directory"])
def test_a_model_that_writes_is_told_by_its_weights(
    fixture: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(request.getfixturevalue(fixture), directory)
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"architectures": None}))
    assert inspect_checkpoint(directory).family.name == fixture.removesuffix("_directory")


@pytest.mark.parametrize(
    "task", [CaptionTask(), AskTask(from_texts(["what?"]))], ids=["caption", "ask"]
)
def test_text_is_refused_before_anything_is_loaded(sides: Sides, task: Task) -> None:
    options = RunOptions(SourceOptions(("nowhere",)), ModelOptions(str(sides.directory)))
    with pytest.raises(OptionError, match="is a retrieval model"):
        run(Job(ImageItems(), task, options, load=unwanted))


@pytest.mark.parametrize("kind", ["projection", "multimodal"])
def test_projections_are_refused_before_a_model_without_them_is_loaded(
    opt_directory: Path, kind: Kind
) -> None:
    options = RunOptions(SourceOptions(("nowhere",)), ModelOptions(str(opt_directory)))
    with pytest.raises(OptionError, match=f"no projection head, so there is no kind {kind}"):
        run(Job(ImageItems(), embed_task(kind), options, load=unwanted))


def embed_task(kind: Kind) -> EmbedTask:
    return EmbedTask(EmbedOptions(kind), from_lines(["a cat"] if kind == "multimodal" else []))


def unwanted(options: ModelOptions) -> Blip2:
    raise AssertionError("the model was loaded")
