"""Captions, prompts and questions about scenes and easy-VQA pictures, each with its answer."""

from __future__ import annotations

import random
from dataclasses import dataclass

from blip2cli.tiny.scenes import Scene
from training.questions import scene_question, side_question

_CAPTION_PROMPTS = (
    "a photo of",
    "a picture of",
    "an image of",
    "this is a picture of",
    "a photo of",
)
# The paper's two forms of a question; a model is trained mostly on the first of its pair.
OPT_FORMS = ("Question: {} Answer:", "Question: {} Short answer:")
T5_FORMS = OPT_FORMS[::-1]


@dataclass(frozen=True)
class Text:
    """What the language model reads after the image, and its target.

    ``prompt`` may be empty (a caption without a prompt); ``target`` starts with a space when
    it goes on from a prompt.
    """

    prompt: str
    target: str


def question_text(question: str, answer: str, form: str = OPT_FORMS[0]) -> Text:
    """A question in BLIP-2's form: ``Question: … Answer:``."""
    return Text(form.format(question), " " + answer)


def caption_texts(rng: random.Random, caption: str) -> Text:
    """The caption, mostly without a prompt, sometimes as the rest of one."""
    if rng.random() < 0.75:
        return Text("", caption)
    return Text(rng.choice(_CAPTION_PROMPTS), " " + caption)


def side_texts(rng: random.Random, scene: Scene, questions: int, form: str) -> list[Text]:
    """``questions`` questions about left and right, or fewer where the scene has no such."""
    made = [side_question(rng, scene) for _ in range(questions)]
    return [question_text(roughened(rng, each[0]), each[1], form) for each in made if each]


def roughened(rng: random.Random, question: str) -> str:
    """A question as people type it: now and then a capital letter or no question mark."""
    if rng.random() < 0.2:
        question = question[0].upper() + question[1:]
    if rng.random() < 0.06:
        question = question.rstrip("?")
    return question


def scene_texts(
    rng: random.Random,
    scene: Scene,
    questions: int,
    sides: bool = False,
    forms: tuple[str, ...] = OPT_FORMS,
) -> list[Text]:
    """The caption first, then ``questions`` random ones in one of BLIP-2's two forms."""
    texts = [caption_texts(rng, scene.caption)]
    for _ in range(questions):
        question, answer = scene_question(rng, scene, sides)
        form = forms[0] if rng.random() < 0.85 else forms[1]
        texts.append(question_text(roughened(rng, question), answer, form))
    return texts
