"""Rows of all tasks, by a model with random weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from blip2cli.errors import OptionError
from blip2cli.images.batch_stream import LoadedBatch
from blip2cli.model.families import OPT
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import AskOptions, CaptionOptions, DecodeOptions, EmbedOptions
from blip2cli.sinks.base import Column, RowSchema
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.embed_texts import EmbedTextsTask
from blip2cli.tasks.questions import Question, Questions, from_texts
from blip2cli.tasks.texts import from_lines
from tests.tasks.helpers import load

CAT = from_lines(["a cat"])
SHORT = DecodeOptions(max_new_tokens=6)


@pytest.fixture
def batch(mixed: Path, model: Blip2) -> LoadedBatch:
    """Five good images and a failure, in one batch."""
    return load(mixed, model)


def names(batch: LoadedBatch) -> list[str]:
    return [item.file_name for item in batch.items if item.error is None]


@pytest.mark.parametrize(
    "task",
    [
        CaptionTask(decode=SHORT),
        CaptionTask(
            CaptionOptions("a photo of"),
            DecodeOptions(max_new_tokens=4, num_beams=3, num_captions=2),
        ),
        AskTask(from_texts(["what?"]), decode=SHORT),
        EmbedTask(),
        EmbedTask(EmbedOptions("qformer", "none")),
    ],
)
def test_rows_fit_the_columns(task: Task, model: Blip2, batch: LoadedBatch) -> None:
    task = task.fit(model)
    schema = RowSchema.of(task.columns, inline_errors=False)
    rows = [schema.complete(row) for row in task.rows(model, batch)]
    assert [row["file_name"] for row in rows] == names(batch)
    assert [(row["width"], row["height"]) for row in rows][:2] == [(40, 30), (64, 64)]
    failed = next(item for item in batch.items if item.error is not None)
    for row in task.failed_rows(failed):
        complete = schema.complete(row)
        assert complete["file_name"] == "b-broken.jpg"
        assert complete["width"] is None


def test_a_caption_is_the_best_text_and_its_logprob(model: Blip2, batch: LoadedBatch) -> None:
    task = CaptionTask(
        CaptionOptions("a cat"), DecodeOptions(max_new_tokens=5, num_beams=4, num_captions=3)
    )
    rows = task.rows(model, batch)
    features = model.features(batch.pixels)
    expected = model.generate(features, [Prompt(2, "a cat", "c.webp")], task.decode)[0]
    assert rows[2]["caption"] == expected[0].text
    assert rows[2]["logprob"] == round(expected[0].logprob, 6)
    assert rows[2]["candidates"] == [
        {"text": text.text, "logprob": round(text.logprob, 6)} for text in expected
    ]


def test_candidates_are_a_column_only_when_several_are_asked() -> None:
    one = CaptionTask().columns
    assert one == (
        Column("caption", "string"),
        Column("logprob", "float"),
        Column("flag", "string"),
    )
    several = CaptionTask(decode=DecodeOptions(num_beams=2, num_captions=2)).columns
    assert several == (*one, Column("candidates", "texts"))


def test_every_question_goes_to_every_image_in_order(model: Blip2, batch: LoadedBatch) -> None:
    task = AskTask(from_texts(["what is it?", "how many cats?"]), decode=SHORT)
    rows = task.rows(model, batch)
    triples = [(row["file_name"], row["question"], row["question_id"]) for row in rows]
    assert triples == [
        (name, text, number)
        for name in names(batch)
        for text, number in (("what is it?", "1"), ("how many cats?", "2"))
    ]
    features = model.features(batch.pixels)
    prompt = "Question: how many cats? Answer:"
    expected = model.generate(features, [Prompt(1, prompt, "b.jpg")], SHORT)[0][0]
    assert rows[3]["answer"] == expected.text
    assert rows[3]["logprob"] == round(expected.logprob, 6)


def test_an_image_gets_its_own_questions(model: Blip2, batch: LoadedBatch) -> None:
    questions = Questions(
        per_image={
            "c.webp": (Question("x?", "7"), Question("y?", "8")),
            "a.png": (Question("z?", "9"),),
        }
    )
    task = AskTask(questions, AskOptions(template="{question}"), decode=SHORT)
    rows = task.rows(model, batch)
    assert [(row["file_name"], row["question_id"]) for row in rows] == [
        ("a.png", "9"),
        ("c.webp", "7"),
        ("c.webp", "8"),
    ]
    assert task.only is not None
    assert set(task.only) == {"a.png", "c.webp"}


def test_two_questions_are_drawn_independently(model: Blip2, batch: LoadedBatch) -> None:
    same = Questions((Question("what?", "1"), Question("what?", "2")))
    drawn = DecodeOptions(max_new_tokens=12, temperature=1.0, seed=3)
    rows = AskTask(same, decode=drawn).rows(model, batch)
    assert any(
        one["answer"] != two["answer"] for one, two in zip(rows[::2], rows[1::2], strict=True)
    )
    assert AskTask(same, decode=drawn).rows(model, batch) == rows


class Counting:
    """The model, counting how many images went through the vision side."""

    def __init__(self, model: Blip2) -> None:
        self.model = model
        self.seen = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)

    def features(self, pixels: torch.Tensor) -> object:
        self.seen += len(pixels)
        return self.model.features(pixels)


def test_many_questions_are_decoded_in_chunks(model: Blip2, batch: LoadedBatch) -> None:
    task = AskTask(from_texts([f"what is {n}?" for n in range(3)]), decode=SHORT)
    whole = task.rows(model, batch)
    sizes: list[int] = []

    class Watched(Counting):
        def generate(self, features: object, prompts: list[Prompt], options: object) -> object:
            sizes.append(len(prompts))
            return self.model.generate(features, prompts, options)  # type: ignore[arg-type]

    task = dataclasses.replace(task, prompt_batch=4)
    assert task.rows(Watched(model), batch) == whole  # type: ignore[arg-type]
    assert sizes == [4, 4, 4, 3]


def test_features_are_computed_once_an_image(model: Blip2, batch: LoadedBatch) -> None:
    counting = Counting(model)
    task = AskTask(from_texts([f"what is {n}?" for n in range(4)]), decode=SHORT)
    assert len(task.rows(counting, batch)) == 20  # type: ignore[arg-type]
    assert counting.seen == 5


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (EmbedTask(), lambda f: f.pooled),
        (EmbedTask(EmbedOptions("image", "cls")), lambda f: f.pooled),
        (EmbedTask(EmbedOptions("image", "mean")), lambda f: f.image_embeds[:, 1:].mean(1)),
        (EmbedTask(EmbedOptions("qformer")), lambda f: f.query_output.mean(1)),
        (
            EmbedTask(EmbedOptions("qformer", "none")),
            lambda f: f.query_output.reshape(len(f.query_output), -1),
        ),
    ],
)
def test_embeddings_are_the_features(
    task: EmbedTask, expected: object, model: Blip2, batch: LoadedBatch
) -> None:
    task = task.fit(model)
    rows = task.rows(model, batch)
    vectors = torch.stack([torch.as_tensor(row["embedding"]) for row in rows])
    torch.testing.assert_close(vectors, expected(model.features(batch.pixels)))  # type: ignore[operator]
    assert vectors.shape == (5, task.size)
    assert task.columns == (Column("embedding", "embedding", task.size), Column("kind", "string"))
    assert {row["kind"] for row in rows} == {task.kind}


def test_a_batch_without_good_images_gives_no_rows(tmp_path: Path, model: Blip2) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    batch = load(tmp_path, model)
    for task in (CaptionTask(), AskTask(from_texts(["a?"])), EmbedTask().fit(model)):
        assert task.rows(model, batch) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AskTask(from_texts([])), "Nothing is asked"),
        (lambda: AskTask(from_texts(["a?"]), AskOptions(template="Question:")), "{question}"),
        (lambda: AskTask(from_texts(["a?"]), decode=DecodeOptions(temperature=0)), "temperature"),
        (lambda: CaptionTask(decode=DecodeOptions(num_captions=3)), "captions an image need"),
        (lambda: EmbedTask(EmbedOptions("image", "none")), "pool none does not fit kind image"),
        (lambda: EmbedTask(EmbedOptions("qformer", "cls")), "pool cls does not fit kind qformer"),
        (lambda: EmbedTask(EmbedOptions("other")), "kind has no value 'other'"),  # type: ignore[arg-type]
        (
            lambda: EmbedTask(EmbedOptions("projection")).check("tiny", OPT),
            "tiny has no projection head",
        ),
        (
            lambda: EmbedTask(EmbedOptions("multimodal"), CAT).check("tiny", OPT),
            "kind image and kind qformer",
        ),
        (lambda: EmbedTask(EmbedOptions("multimodal")), "give one with text"),
        (
            lambda: EmbedTask(EmbedOptions("projection"), CAT),
            "leave out sources to embed the texts",
        ),
        (lambda: EmbedTask(EmbedOptions("language")), "kind language is none of images"),
        (lambda: EmbedTextsTask(EmbedOptions("image")), "kind image is none of texts"),
        (
            lambda: EmbedTextsTask(EmbedOptions("language", "cls")),
            "pool cls does not fit kind language",
        ),
        (
            lambda: EmbedTextsTask(EmbedOptions(pool="cls")).check("tiny", OPT),
            "kind language of texts, which",
        ),
        (
            lambda: EmbedTextsTask(EmbedOptions("projection")).check("tiny", OPT),
            "they have kind language",
        ),
        (lambda: EmbedOptions(embedding_dtype="int8"), "embedding_dtype has no value 'int8'"),  # type: ignore[arg-type]
    ],
)
def test_unfit_options_are_refused(make: object, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        make()  # type: ignore[operator]
    assert message in str(caught.value)


def test_settings_are_plain_and_leave_out_a_seed_without_effect() -> None:
    import json

    task = CaptionTask(CaptionOptions("a photo of"))
    assert json.loads(json.dumps(task.settings)) == task.settings
    assert "seed" not in task.settings
    drawn = dataclasses.replace(task, decode=DecodeOptions(top_k=5, seed=4))
    assert drawn.settings["seed"] == 4
    assert AskTask(from_texts(["a?", "b?"])).settings["question"] == ["a?", "b?"]
    assert EmbedTask(
        EmbedOptions("qformer", normalize=True, embedding_dtype="float16")
    ).settings == {
        "task": "embed",
        "kind": "qformer",
        "pool": "mean",
        "normalize": True,
        "embedding_dtype": "float16",
    }
    assert EmbedTask(EmbedOptions("multimodal"), CAT).settings["text"] == ["a cat"]
