"""What prompts begin with is computed once, and has the bits that it has alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from blip2cli.model.decoding.requests import ImagePrompt
from blip2cli.model.families.opt.session import OptSession
from blip2cli.model.families.opt.token_tree import TokenTree
from tests.model.conftest import IMAGES, Pair
from tests.model.decoding.helpers import open_session

CPU = torch.device("cpu")
SHARED = [(3, (2, 7, 8)), (3, (2, 7, 9)), (5, (2, 7)), (3, (2, 7))]


def drawn(seed: int) -> list[ImagePrompt]:
    draw = random.Random(seed)
    lengths = [draw.randint(1, 6) for _ in range(draw.randint(1, 9))]
    return [
        (draw.randrange(3), tuple(draw.randrange(4, 7) for _ in range(length)))
        for length in lengths
    ]


def test_common_beginnings_behind_an_image_are_one_node() -> None:
    tree = TokenTree.of(SHARED, 4, CPU)
    assert tree.follows.tolist() == [3, 3, 5, 3]
    assert tree.ids.tolist() == [[2, 7, 8, 9, 2, 7, 2, 2]]  # the first again, up to eight
    assert tree.positions.tolist() == [[0, 1, 2, 2, 0, 1, 0, 0]]
    assert tree.nodes.tolist() == [[0, 1, 2, 2], [0, 1, 3, 3], [4, 5, 5, 5], [0, 1, 1, 1]]
    assert tree.places.tolist() == [0, 1, 2, 6, 8, 9, 0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_every_position_is_a_node_with_its_token(seed: int) -> None:
    prompts = drawn(seed)
    tree = TokenTree.of(prompts, 6, CPU)
    ids, positions = tree.ids.flatten(), tree.positions.flatten()
    assert ids.numel() % 8 == 0
    beginnings = {(image, ids[:n]) for image, ids in prompts for n in range(1, len(ids) + 1)}
    assert tree.nodes.max() == len(beginnings) - 1
    assert ids.numel() - len(beginnings) < 8
    for (_, prompt), nodes in zip(prompts, tree.nodes, strict=True):
        own = nodes[: len(prompt)]
        assert tuple(ids[own].tolist()) == prompt
        assert positions[own].tolist() == list(range(len(prompt)))
    real = tree.places[: len(beginnings)]
    assert torch.equal(tree.nodes.flatten()[real], torch.arange(len(beginnings)))


@pytest.mark.parametrize("family", ["opt", "wide", "half"])
def test_keys_and_values_are_those_of_each_prompt_alone(
    family: str, request: pytest.FixtureRequest
) -> None:
    pair: Pair = request.getfixturevalue(family)
    session = open_session(pair)
    assert isinstance(session, OptSession)
    draw = random.Random(4)
    templates = [(2, 11, 5, word, 6)[: 3 + word % 3] for word in range(10, 16)]
    prompts = [(draw.randrange(IMAGES), ids) for ids in templates * 4]
    together = session.prompt_keys_values(prompts, 8)
    for row, prompt in enumerate(prompts):
        alone = session.prompt_keys_values([prompt], 8)
        real = len(prompt[1])
        for layer in range(len(session.decoder.layers)):
            for ours, theirs in zip(together[layer], alone[layer], strict=True):
                assert torch.equal(ours[row, :, :real], theirs[0, :, :real])


@pytest.fixture
def session(opt: Pair) -> OptSession:
    """Its images were read."""
    found = open_session(opt)
    assert isinstance(found, OptSession)
    assert found.image_cache
    return found


@contextmanager
def counted(session: OptSession) -> Iterator[list[int]]:
    """The rows that go through a layer's products."""
    rows: list[int] = []

    def watch(_: object, given: tuple[Tensor, ...]) -> None:
        rows.append(given[0].shape[:2].numel())

    handle = session.decoder.layers[0].fc1.register_forward_pre_hook(watch)
    yield rows
    handle.remove()


def test_questions_in_one_template_share_its_rows(session: OptSession) -> None:
    with counted(session) as rows:
        session.prompt_keys_values([(1, (2, 7, 8, word)) for word in range(20, 33)], 4)
    assert rows == [16]  # 3 + 13, in place of 52


def test_choices_share_the_end_of_their_prompt(session: OptSession) -> None:
    prompt = (1, tuple(range(2, 10)))
    choices = [(11, word) for word in range(20, 32)] + [(11,)]
    with counted(session) as rows:
        together = session.continuation_states([prompt], [0] * len(choices), choices, 4)
    assert rows == [8, 24]  # 4 and 4 + 1 + 12, filled up, in place of 4 and 13 * 8
    for number, choice in enumerate(choices):
        alone = session.continuation_states([prompt], [0], [choice], 4)
        end = len(choice) + 1
        assert torch.equal(together[number, :end], alone[0, :end])
