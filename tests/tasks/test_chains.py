"""Multi-turn questions: rounds, history, and parity with turns fed to transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from blip2cli.errors import OptionError
from blip2cli.images.batch_stream import LoadedBatch
from blip2cli.images.preprocess import normalize
from blip2cli.model.families import OPT
from blip2cli.model.wrapper import Blip2
from blip2cli.options import AskOptions, DecodeOptions, ModelOptions
from blip2cli.system.library_logging import silence_libraries
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.chains import assign_rounds, fill_placeholders, render_history
from blip2cli.tasks.questions import Question, Questions, from_texts
from tests.checkpoints import QUERIES, tiny_random_t5
from tests.tasks.helpers import load

SHORT = DecodeOptions(max_new_tokens=6, min_new_tokens=3)
TURNS = (("what is it?", "a dog"), ("what colour?", "It is brown."))


@pytest.fixture
def batch(mixed: Path, model: Blip2) -> LoadedBatch:
    return load(mixed, model)


def chain(*texts: str) -> tuple[Question, ...]:
    return from_texts(texts).common


def test_history_is_rendered_as_in_the_documentation() -> None:
    assert (
        render_history(TURNS)
        == "Question: what is it? Answer: a dog. Question: what colour? Answer: It is brown."
    )
    assert render_history(()) == ""


def test_placeholders_are_filled_in() -> None:
    assert fill_placeholders("how old is {answer}?", TURNS[:1]).text == "how old is a dog?"
    leading = fill_placeholders("{history} why?", TURNS)
    assert (leading.text, leading.history) == ("why?", render_history(TURNS))
    inside = fill_placeholders("given {history}, why?", TURNS[:1])
    assert inside.text == "given Question: what is it? Answer: a dog., why?"
    assert inside.history == ""
    # An answer that looks like a placeholder is an answer.
    assert fill_placeholders("{answer}?", [("what?", "{history}")]).text == "{history}?"
    shorter = fill_placeholders("{history} is {answer} so?", TURNS, skip=1)
    assert (shorter.text, shorter.history) == ("is It is brown. so?", render_history(TURNS[1:]))


def test_a_question_opens_a_round_only_if_it_needs_answers() -> None:
    assert assign_rounds(chain("a?", "b?", "c {answer}?", "d?", "{history} e?")) == [0, 0, 1, 1, 2]
    assert assign_rounds(chain("a?", "b?", "c?"), all_depend=True) == [0, 1, 2]
    assert assign_rounds(()) == []


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        (from_texts(["is {answer} red?", "b?"]), "question 'is {answer} red?' holds {answer}, but"),
        (from_texts(["a?", "{history}"]), "asks nothing beside {history}"),
        (
            Questions(
                per_image={"a.png": chain("a?"), "b.png": chain("{answer}?")}, source="q.csv"
            ),
            "questions b.png: '{answer}?' holds {answer}, but nothing is answered before it",
        ),
    ],
)
def test_a_first_question_without_earlier_answers_is_refused(
    questions: Questions, message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        AskTask(questions)
    assert message in str(caught.value)


CONVERSATION = ("what is it?", "{history} where is the {answer}?", "{history} why?", "who?")


def feed_transformers(
    model: Blip2, theirs: torch.nn.Module, pixels: torch.Tensor, template: str
) -> list[str]:
    """The answers of the conversation by transformers' generate, turn by turn."""
    tokenizer = model.codec.tokenizer

    def answer(prompt: str) -> str:
        ids = [theirs.config.image_token_index] * QUERIES + list(model.codec.encode(prompt))
        with silence_libraries(), torch.no_grad():
            out = theirs.generate(  # type: ignore[operator]
                pixel_values=pixels,
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=SHORT.max_new_tokens,
                min_new_tokens=SHORT.min_new_tokens,
            )[0]
        new = out[len(ids) :] if model.family is OPT else out
        return str(tokenizer.decode(new, skip_special_tokens=True)).strip()

    def ended(text: str) -> str:
        return text if text[-1:] in (".", "!", "?") else text + "."

    one = answer(template.format("what is it?"))
    second = f"where is the {one}?"
    context = f"Question: what is it? Answer: {ended(one)}"
    two = answer(context + " " + template.format(second))
    context += f" Question: {second} Answer: {ended(two)}"
    three = answer(context + " " + template.format("why?"))
    return [one, two, three, answer(template.format("who?"))]


@pytest.fixture(params=["opt", "t5"])
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Blip2, torch.nn.Module]]:
    from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration

    if request.param == "opt":
        directory = request.getfixturevalue("checkpoint")
    else:
        directory = tiny_random_t5(tmp_path_factory.mktemp("chains") / "t5")
    ours = Blip2.load(ModelOptions(str(directory), device="cpu", dtype="float32"))
    with silence_libraries():
        yield ours, Blip2ForConditionalGeneration.from_pretrained(directory).eval()


def test_a_conversation_equals_turns_fed_to_transformers(
    family: tuple[Blip2, torch.nn.Module], mixed: Path
) -> None:
    model, theirs = family
    batch = load(mixed, model)
    rows = AskTask(from_texts(CONVERSATION), decode=SHORT).rows(model, batch)
    template = "Question: {} Answer:" if model.family is OPT else "Question: {} Short answer:"
    values = normalize(batch.pixels, model.spec, torch.float32)
    answers = [row["answer"] for row in rows]
    expected = [
        feed_transformers(model, theirs, values[i : i + 1], template) for i in range(len(values))
    ]
    assert answers == [answer for image in expected for answer in image]
    if model.family is OPT:  # T5's small vocabulary is learnt anew, and not always the same
        assert len({answers[n] for n in range(1, len(answers), 4)}) > 1  # the first answers differ
    assert rows[1]["question"] == f"where is the {answers[0]}?"
    assert [rows[2]["question"], rows[3]["question"]] == ["why?", "who?"]


def test_a_conversation_does_not_depend_on_the_batch(mixed: Path, model: Blip2) -> None:
    from blip2cli.images.batch_stream import BatchStream
    from blip2cli.options import LoaderOptions, SourceOptions
    from blip2cli.sources import open_sources

    task = AskTask(from_texts(CONVERSATION), decode=SHORT)
    whole = task.rows(model, load(mixed, model))
    refs = open_sources(SourceOptions((str(mixed),)))
    with BatchStream(refs, model.spec, LoaderOptions(batch_size=1, workers=0)) as batches:
        one_by_one = [row for batch in batches for row in task.rows(model, batch)]
    assert one_by_one == whole


def test_a_round_decodes_the_questions_of_all_images_together(
    model: Blip2, batch: LoadedBatch
) -> None:
    sizes: list[int] = []

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(model, name)

        def generate(self, features: object, prompts: list[object], options: object) -> object:
            sizes.append(len(prompts))
            return model.generate(features, prompts, options)  # type: ignore[arg-type]

    per_image = {
        "a.png": chain("a?", "b {answer}?", "c?"),
        "c.webp": chain("a?"),
        "d.png": chain("a?", "b?", "{history} c?", "d {answer}?"),
    }
    task = AskTask(Questions(per_image=per_image, source="q.csv"), decode=SHORT)
    rows = task.rows(Watched(), batch)  # type: ignore[arg-type]
    assert sizes == [4, 3, 1]
    assert [(row["file_name"], row["question_id"]) for row in rows] == [
        *[("a.png", n) for n in "123"],
        ("c.webp", "1"),
        *[("d.png", n) for n in "1234"],
    ]


def test_an_answer_may_be_a_choice(model: Blip2, batch: LoadedBatch) -> None:
    questions = Questions((Question("is it?", "1", ("yes", "no")), Question("why {answer}?", "2")))
    rows = AskTask(questions, decode=SHORT).rows(model, batch)
    assert [row["question"] for row in rows[1::2]] == [f"why {r['answer']}?" for r in rows[::2]]
    assert {row["answer"] for row in rows[::2]} <= {"yes", "no"}


def test_a_template_may_place_the_history(model: Blip2, batch: LoadedBatch) -> None:
    placed = AskTask(
        from_texts(["what?", "why?"]),
        AskOptions(template="{history} Question: {question} Answer:"),
        decode=SHORT,
    )
    leading = AskTask(from_texts(["what?", "{history} why?"]), decode=SHORT)
    assert placed.rows(model, batch) == leading.rows(model, batch)


def test_turns_beyond_the_positions_are_left_out_oldest_first(
    model: Blip2, batch: LoadedBatch
) -> None:
    prompts: list[str] = []

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(model, name)

        def generate(self, features: object, batch: list[object], options: object) -> object:
            prompts.extend(prompt.text for prompt in batch)  # type: ignore[attr-defined]
            return model.generate(features, batch, options)  # type: ignore[arg-type]

    texts = ["what is left of the dog?", *["{history} how many cats are there?"] * 9]
    rows = AskTask(from_texts(texts), decode=SHORT).rows(Watched(), batch)  # type: ignore[arg-type]
    assert len(rows) == 5 * 10
    assert max(prompt.count("Question:") for prompt in prompts) < 10
    assert all(model.fits(prompt, SHORT.max_new_tokens) for prompt in prompts)
    last = prompts[-1]
    assert "what is left of the dog?" not in last
    assert last.endswith("Question: how many cats are there? Answer:")


def test_failed_images_keep_the_questions_as_written(model: Blip2, batch: LoadedBatch) -> None:
    failed = next(item for item in batch.items if item.error is not None)
    rows = AskTask(from_texts(["what?", "why {answer}?"])).failed_rows(failed)
    assert [row["question"] for row in rows] == ["what?", "why {answer}?"]
