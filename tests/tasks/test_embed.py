"""Parity of every kind of embedding with the transformers class that computes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize as unit
from transformers.models.blip_2 import modeling_blip_2 as blip_2
from transformers.models.blip_2.processing_blip_2 import Blip2Processor

from blip2cli.errors import OptionError
from blip2cli.images.batch_stream import BatchStream, LoadedBatch
from blip2cli.images.preprocess import normalize
from blip2cli.model.checkpoint.embedded import embedded_path
from blip2cli.model.wrapper import Blip2
from blip2cli.options import EmbedOptions, LoaderOptions, ModelOptions, SourceOptions
from blip2cli.sources import open_sources
from blip2cli.system.library_logging import silence_libraries
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.embed_texts import EmbedTextsTask
from blip2cli.tasks.texts import from_lines
from blip2cli.tasks.vectors import finish_vectors
from tests.checkpoints import tiny_random_itm, tiny_random_opt, tiny_random_t5
from tests.command import is_embedded

TEXTS = ("two cats and a pizza on a blue background", "a tree", "a car", "how many birds?")
WRITERS = ["opt", "t5", "tiny", "tiny-t5"]
RETRIEVERS = ["itm", "tiny-itm"]


@dataclass(frozen=True)
class Side:
    """Our model of one directory, and a batch of images for it and for transformers."""

    directory: Path
    ours: Blip2
    batch: LoadedBatch
    tokenizer: Any

    @property
    def pixels(self) -> Tensor:
        return normalize(self.batch.pixels, self.ours.spec, torch.float32)

    def theirs(self, kind: type[Any]) -> Any:
        """transformers' own model of the class ``kind`` with these weights."""
        with silence_libraries():
            return kind.from_pretrained(self.directory).eval()

    def vectors(self, task: EmbedTask) -> Tensor:
        task = task.fit(self.ours)
        found = torch.stack(
            [torch.as_tensor(row["embedding"]) for row in task.rows(self.ours, self.batch)]
        )
        assert found.shape[1] == task.size
        assert found.std(dim=0).max() > 1e-3  # images differ
        return found

    def text_vectors(self, task: EmbedTextsTask) -> Tensor:
        task = task.fit(self.ours)
        rows = task.rows(self.ours, TEXTS)
        assert [row["text"] for row in rows] == list(TEXTS)
        assert {row["kind"] for row in rows} == {task.options.kind}
        found = torch.stack([torch.as_tensor(row["embedding"]) for row in rows])
        assert found.shape[1] == task.size
        assert found.std(dim=0).max() > 1e-3
        return found

    def ids(self, *texts: str) -> dict[str, Tensor]:
        return dict(self.tokenizer(list(texts), padding=True, return_tensors="pt"))


@pytest.fixture(scope="module")
def sides(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Side]:
    return {}


@pytest.fixture
def side(
    request: pytest.FixtureRequest,
    sides: dict[str, Side],
    images: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Side:
    name: str = request.param
    if name not in sides:
        if is_embedded(name):
            directory = embedded_path(name)
        elif name.startswith("tiny"):
            pytest.skip(f"{name} is not in this installation")
        else:
            make = {"opt": tiny_random_opt, "t5": tiny_random_t5, "itm": tiny_random_itm}[name]
            directory = make(tmp_path_factory.mktemp(name) / name)
        ours = Blip2.load(ModelOptions(str(directory), device="cpu", dtype="float32"))
        refs = open_sources(SourceOptions((str(images),)))
        (batch,) = BatchStream(refs, ours.spec, LoaderOptions(workers=0))
        with silence_libraries():
            tokenizer = Blip2Processor.from_pretrained(directory).tokenizer
        sides[name] = Side(directory, ours, batch, tokenizer)
    return sides[name]


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [*WRITERS, *RETRIEVERS], indirect=True)
@torch.inference_mode()
def test_image_equals_Blip2VisionModel(side: Side) -> None:  # noqa: N802
    if side.ours.writes:
        output = side.theirs(blip_2.Blip2Model).get_image_features(side.pixels)
    else:
        output = side.theirs(blip_2.Blip2ForImageTextRetrieval).vision_model(side.pixels)
    close(side.vectors(EmbedTask(EmbedOptions("image"))), output.pooler_output)
    close(side.vectors(EmbedTask(EmbedOptions("image", "cls"))), output.pooler_output)
    close(
        side.vectors(EmbedTask(EmbedOptions("image", "mean"))),
        output.last_hidden_state[:, 1:].mean(1),
    )


@pytest.mark.parametrize("side", WRITERS, indirect=True)
@torch.inference_mode()
def test_qformer_equals_get_qformer_features(side: Side) -> None:
    queries = side.theirs(blip_2.Blip2Model).get_qformer_features(side.pixels)
    close(side.vectors(EmbedTask(EmbedOptions("qformer"))), queries.mean(1))
    close(side.vectors(EmbedTask(EmbedOptions("qformer", "none"))), queries.flatten(1))


@pytest.mark.parametrize("side", RETRIEVERS, indirect=True)
@torch.inference_mode()
def test_qformer_of_a_retrieval_model_equals_Blip2QFormerModel(side: Side) -> None:  # noqa: N802
    theirs = side.theirs(blip_2.Blip2ForImageTextRetrieval)
    patches = theirs.vision_model(side.pixels).last_hidden_state
    queries = theirs.qformer(
        query_embeds=theirs.query_tokens.expand(len(patches), -1, -1),
        encoder_hidden_states=patches,
        encoder_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long),
    ).last_hidden_state
    close(side.vectors(EmbedTask(EmbedOptions("qformer"))), queries.mean(1))


@pytest.mark.parametrize("side", RETRIEVERS, indirect=True)
@torch.inference_mode()
def test_projection_equals_Blip2VisionModelWithProjection(side: Side) -> None:  # noqa: N802
    projected = side.theirs(blip_2.Blip2VisionModelWithProjection)(side.pixels).image_embeds
    close(side.vectors(EmbedTask(EmbedOptions("projection"))), projected.mean(1))
    close(side.vectors(EmbedTask(EmbedOptions("projection", "none"))), projected.flatten(1))


@pytest.mark.parametrize("side", RETRIEVERS, indirect=True)
@torch.inference_mode()
def test_multimodal_equals_the_query_positions_before_the_matching_head(side: Side) -> None:
    theirs = side.theirs(blip_2.Blip2ForImageTextRetrieval)
    patches = theirs.vision_model(side.pixels).last_hidden_state
    mask = torch.ones(patches.shape[:2], dtype=torch.long)
    queries = theirs.query_tokens.shape[1]
    task = EmbedTask(EmbedOptions("multimodal", "none"), from_lines(TEXTS))
    got = side.vectors(task).unflatten(0, (len(patches), len(TEXTS)))
    for number, text in enumerate(TEXTS):
        ids = side.ids(text)["input_ids"].expand(len(patches), -1)
        both = theirs.embeddings(
            input_ids=ids, query_embeds=theirs.query_tokens.expand(len(patches), -1, -1)
        )
        states = theirs.qformer(
            query_embeds=both,
            query_length=queries,
            attention_mask=torch.ones(both.shape[:2], dtype=torch.long),
            encoder_hidden_states=patches,
            encoder_attention_mask=mask,
        ).last_hidden_state[:, :queries]
        close(got[:, number], states.flatten(1))
        # These are the states that Blip2ForImageTextRetrieval matches by.
        token = theirs.config.image_token_index
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if token is not None:
            front = torch.full((len(patches), queries), token)
            inputs["input_ids"] = torch.cat((front, ids), 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        logits = theirs(side.pixels, **inputs, use_image_text_matching_head=True).logits_per_image
        close(theirs.itm_head(got[:, number].unflatten(1, (queries, -1))).mean(1), logits)
    mean = side.vectors(EmbedTask(EmbedOptions("multimodal"), from_lines(TEXTS)))
    close(mean, got.flatten(0, 1).unflatten(1, (queries, -1)).mean(1))


@pytest.mark.parametrize("side", WRITERS, indirect=True)
@torch.inference_mode()
def test_language_equals_get_text_features(side: Side) -> None:
    theirs = side.theirs(blip_2.Blip2Model)
    want = [theirs.get_text_features(**side.ids(text)).last_hidden_state[0] for text in TEXTS]
    means = torch.stack([states.mean(0) for states in want])
    close(side.text_vectors(EmbedTextsTask()), means)
    close(
        side.text_vectors(EmbedTextsTask(EmbedOptions("language", "mean"))),
        means,
    )


@pytest.mark.parametrize("side", RETRIEVERS, indirect=True)
@torch.inference_mode()
def test_texts_equal_Blip2TextModelWithProjection(side: Side) -> None:  # noqa: N802
    theirs = side.theirs(blip_2.Blip2TextModelWithProjection)
    outputs = [theirs(**side.ids(text)) for text in TEXTS]
    first = torch.stack([output.text_embeds[0, 0] for output in outputs])
    close(side.text_vectors(EmbedTextsTask()), first)
    close(side.text_vectors(EmbedTextsTask(EmbedOptions("projection", "cls"))), first)
    mean = torch.stack([output.text_embeds[0].mean(0) for output in outputs])
    close(side.text_vectors(EmbedTextsTask(EmbedOptions("projection", "mean"))), mean)
    states = [output.last_hidden_state[0] for output in outputs]
    close(
        side.text_vectors(EmbedTextsTask(EmbedOptions("qformer"))),
        torch.stack([s[0] for s in states]),
    )
    close(
        side.text_vectors(EmbedTextsTask(EmbedOptions("qformer", "mean"))),
        torch.stack([s.mean(0) for s in states]),
    )
    # Padded together, as the documentation has it, they are the same to rounding.
    padded = theirs(**side.ids(*TEXTS)).text_embeds[:, 0]
    close(side.text_vectors(EmbedTextsTask()), padded)


@pytest.mark.parametrize("side", ["itm"], indirect=True)
@torch.inference_mode()
def test_projections_of_images_and_texts_give_the_contrastive_scores(side: Side) -> None:
    queries = side.vectors(EmbedTask(EmbedOptions("projection", "none"))).unflatten(1, (-1, 16))
    texts = side.text_vectors(EmbedTextsTask())
    theirs = side.theirs(blip_2.Blip2ForImageTextRetrieval)
    token = theirs.config.image_token_index
    for number, text in enumerate(TEXTS):
        ids = side.ids(text)["input_ids"]
        ids = torch.cat((torch.full((1, queries.shape[1]), token), ids), 1)
        scores = theirs(side.pixels, ids, torch.ones_like(ids)).logits_per_image[:, 0]
        close((queries @ texts[number]).amax(1), scores)


@pytest.mark.parametrize("side", ["itm"], indirect=True)
def test_normalised_vectors_have_length_1(side: Side) -> None:
    plain = side.vectors(EmbedTask(EmbedOptions("image")))
    close(side.vectors(EmbedTask(EmbedOptions("image", normalize=True))), unit(plain, dim=-1))
    assert (plain.norm(dim=1) - 1).abs().min() > 0.1
    # Each of several vectors in a row.
    queries = side.vectors(EmbedTask(EmbedOptions("qformer", "none"))).unflatten(1, (-1, 32))
    got = side.vectors(EmbedTask(EmbedOptions("qformer", "none", normalize=True)))
    close(got, unit(queries, dim=-1).flatten(1))
    texts = side.text_vectors(EmbedTextsTask(EmbedOptions("qformer", normalize=True)))
    close(texts.norm(dim=1), torch.ones(len(TEXTS)))


@pytest.mark.parametrize("side", ["itm"], indirect=True)
def test_float16_is_the_nearest_to_float32(side: Side) -> None:
    task = EmbedTask(EmbedOptions("projection", embedding_dtype="float16"))
    got = side.vectors(task)
    assert got.dtype == torch.float16
    assert torch.equal(got, side.vectors(EmbedTask(EmbedOptions("projection"))).half())
    assert task.fit(side.ours).columns[0].numbers == "float16"


def test_a_number_beyond_float16_is_refused() -> None:
    large = torch.tensor([[1.0, 70000.0]])
    half = EmbedOptions(embedding_dtype="float16")
    with pytest.raises(OptionError, match="of size 70000, and float16 ends at 65504"):
        finish_vectors(half, large)
    assert finish_vectors(replace(half, normalize=True), large).dtype == np.float16
    assert finish_vectors(EmbedOptions(), large).tolist() == large.tolist()


@pytest.mark.parametrize("side", ["opt", "t5", "itm"], indirect=True)
@pytest.mark.parametrize("normalize_", [False, True])
def test_a_text_has_the_same_bits_in_any_batch(side: Side, normalize_: bool) -> None:
    many = (*TEXTS, *(f"{text} and a house" for text in TEXTS), *("a cat", "a dog", "a", "b"))
    task = EmbedTextsTask(EmbedOptions(normalize=normalize_)).fit(side.ours)
    single = {text: task.rows(side.ours, [text])[0]["embedding"] for text in many}
    for size in (2, 3, 5, len(many)):
        for start in range(0, len(many), size):
            for row in task.rows(side.ours, many[start : start + size]):
                assert np.array_equal(row["embedding"], single[str(row["text"])]), row["text"]  # type: ignore[arg-type]


@pytest.mark.parametrize("side", ["itm"], indirect=True)
@pytest.mark.parametrize("kind", ["projection", "multimodal"])
def test_rows_do_not_depend_on_the_batch(side: Side, kind: Any) -> None:
    texts = from_lines(TEXTS if kind == "multimodal" else [])
    task = EmbedTask(EmbedOptions(kind, "none", normalize=True), texts).fit(side.ours)
    together = task.rows(side.ours, side.batch)
    for number, item in enumerate(side.batch.items):
        one = LoadedBatch((item,), side.batch.pixels[number : number + 1])
        rows = task.rows(side.ours, one)
        assert len(rows) == task.row_count(item.file_name)
        for got in rows:
            want = next(
                row
                for row in together
                if (row["file_name"], row.get("text")) == (got["file_name"], got.get("text"))
            )
            assert np.array_equal(got["embedding"], want["embedding"])  # type: ignore[arg-type]


@pytest.mark.parametrize("side", ["opt"], indirect=True)
def test_a_text_too_long_for_the_language_model_is_refused(side: Side) -> None:
    task = EmbedTextsTask().fit(side.ours)
    with pytest.raises(OptionError, match=r"The text 'cat cat .*…' is \d+ tokens long.*128"):
        task.rows(side.ours, ["a", "cat " * 200])
