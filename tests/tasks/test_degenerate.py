"""Texts that say nothing are told from those that people write."""

from __future__ import annotations

import random

import numpy as np
import pytest

from blip2cli.tasks.degenerate import echoes, flag_of, is_empty, repeats
from blip2cli.tiny.kinds import COLORS
from blip2cli.tiny.samples import SAMPLES
from blip2cli.tiny.scenes import Placed, Scene, random_kinds
from training.questions import scene_question

LOOPS = [
    # What was reported of BLIP-2, and what tiny writes when it may not end.
    "ray ban ray ban ray ban ray ban",
    "a cat and a cat and a cat and a cat",
    "three cows on a brown background on a brown background on a brown background",
    "two cats on a couch two cats on a couch",
    "no no no no cups",
    "no no no",
    "no, no, no, no",
    "The dog. The dog. The dog.",
    (
        "a cake on a pink background trains on a pink background red background red background red "
        "yes yes on a pink background red background red background red white"
    ),
    (
        "a picture of a cat in a picture of a dog in a picture of a cat in a picture of a dog in a "
        "picture of a horse"
    ),
    "猫" * 40,
    "haha" * 12,
]
FINE = [
    "two red balls and two green balls",
    "a cat and a cat",
    "a cat, a cat and a dog",
    "a very, very, very tall tree",
    "no no",
    "bye bye",
    "a man riding a wave on top of a surfboard",
    (
        "a woman in a red dress standing next to a man in a black suit, with a child in a white "
        "shirt in front of a house in the background"
    ),
    "a red ball, a blue ball, a green ball, a yellow ball, a white ball and a black ball",
    "there is a cat on the couch, there is a dog on the floor, and there is a bird in the cage",
    (
        "the left half of the picture shows a dog on the left side of the sofa and the right "
        "half of the picture shows a cat on the right side of the sofa"
    ),
    "a cat and a dog and a cat and a bird and a cat and a dog",
    "one two three one two three",
    "100000000000",
    "12:12:12",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18",
    "www.example.com",
    "一只猫坐在沙发上，旁边有一只狗",
    "",
]


@pytest.mark.parametrize("text", LOOPS)
def test_loops_are_recognised(text: str) -> None:
    assert flag_of(text) == "repetition"


@pytest.mark.parametrize("text", FINE)
def test_what_people_write_is_no_loop(text: str) -> None:
    assert not repeats(text)


@pytest.mark.parametrize("text", ["", " ", ".", "...", "-", "\n", "?!", "\u200b"])
def test_texts_without_a_sign_are_empty(text: str) -> None:
    assert is_empty(text)
    assert flag_of(text, "what is it?") == "empty"


@pytest.mark.parametrize("text", ["a", "7", "+", "$", "是", "😀"])
def test_one_sign_is_an_answer(text: str) -> None:
    assert flag_of(text, "what is written there?") == ""


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("how many cats are there?", "how many cats are there?"),
        ("How many cats are there", "how many cats are there?"),
        ("how many cats", "how many cats are there?"),
        ("two. Question: how many cats are there? Answer: two", "how many cats are there?"),
        ("a photo of a photo of a cat", "a photo of"),
        ("What's in the picture? What's in the", "what's in the picture?"),
    ],
)
def test_an_echo_is_recognised(answer: str, question: str) -> None:
    assert flag_of(answer, question) == "echo"


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("a red car", "is it a red car or a blue car?"),
        ("a dog", "a dog?"),
        ("red", "red?"),
        ("how many", "how many cats are there on the table?"),
        ("a cat on the table", "what is on the table?"),
        ("a photo", "a photo of"),
        ("the cat", "the"),
        ("what is it?", ""),
    ],
)
def test_words_of_the_question_may_be_the_answer(answer: str, question: str) -> None:
    assert not echoes(answer, question)


def test_captions_and_answers_of_the_embedded_model_are_fine() -> None:
    chance, numbers = random.Random(1), np.random.default_rng(1)
    for background in list(COLORS) * 60:
        kinds = random_kinds(numbers)
        scene = Scene(tuple(Placed(kind, *numbers.random(4)) for kind in kinds), background)
        assert flag_of(scene.caption, "a photo of") == ""
        question, answer = scene_question(chance, scene)
        assert flag_of(answer, question) == "", (question, answer)


def test_captions_of_the_sample_images_are_fine() -> None:
    for sample in SAMPLES:
        assert flag_of(sample.caption) == ""
