from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import blip2cli
from blip2cli.errors import ImageError, OptionError, RunError
from blip2cli.images.decode import decode
from blip2cli.images.preprocess import to_uint8
from blip2cli.model.retrieval import Pair
from tests.checkpoints import tiny_random_opt


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> blip2cli.Blip2:
    directory = tiny_random_opt(tmp_path_factory.mktemp("checkpoints") / "opt")
    return blip2cli.Blip2.load(str(directory), device="cpu", batch_size=2)


@pytest.fixture(scope="module")
def retrieval(retrieval_checkpoint: Path) -> blip2cli.Blip2:
    return blip2cli.Blip2.load(str(retrieval_checkpoint), device="cpu", batch_size=2)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    names = []
    for number, color in enumerate(["red", "green", "blue"]):
        picture = Image.effect_noise((40, 30), 90).convert("RGB")
        picture.paste(color, (number * 10, 0, number * 10 + 15, 30))
        names.append(str(tmp_path / f"{color}.png"))
        picture.save(names[-1])
    return names


def test_captions(model: blip2cli.Blip2, pictures: list[str]) -> None:
    rows = model.caption(pictures, max_new_tokens=5)
    assert [row["file_name"] for row in rows] == pictures
    assert list(rows[0]) == ["file_name", "width", "height", "caption", "logprob", "flag"]
    assert (rows[0]["width"], rows[0]["height"]) == (40, 30)
    assert model.caption(pictures[2], max_new_tokens=5) == rows[2:]
    assert model.caption(Path(pictures[2]), max_new_tokens=5) == rows[2:]
    assert model.caption([]) == []


def test_pillow_images_are_as_good_as_files(model: blip2cli.Blip2, pictures: list[str]) -> None:
    opened = [Image.open(name) for name in pictures]
    assert model.caption(opened, max_new_tokens=5) == model.caption(pictures, max_new_tokens=5)
    (row,) = model.caption(opened[0].copy(), max_new_tokens=5)
    assert row["file_name"] == "image 0"


def test_images_from_any_iterable(model: blip2cli.Blip2, pictures: list[str]) -> None:
    expected = model.caption(pictures, max_new_tokens=5)
    assert model.caption((name for name in pictures), max_new_tokens=5) == expected
    assert model.caption(pl.Series(pictures), max_new_tokens=5) == expected
    assert model.caption(np.array(pictures), max_new_tokens=5) == expected
    arrays = np.stack([np.asarray(Image.open(name)) for name in pictures])
    captions = [row["caption"] for row in expected]
    for several in (arrays, list(arrays)):
        assert [row["caption"] for row in model.caption(several, max_new_tokens=5)] == captions
    (row,) = model.caption(arrays[1], max_new_tokens=5)
    assert (row["file_name"], row["caption"]) == ("image 0", captions[1])
    (grey,) = model.caption(arrays[1, :, :, 0], max_new_tokens=5)
    assert (grey["width"], grey["height"]) == (40, 30)
    for wrong in (arrays[0] / 255, arrays[0, :, :, :2], [b"x"], [float("nan")]):
        with pytest.raises(OptionError, match="Image 0 is an"):
            model.caption(wrong)


def test_a_pickled_model_is_loaded_again(pictures: list[str]) -> None:
    loaded = blip2cli.Blip2.load("tiny", batch_size=3)
    again = pickle.loads(pickle.dumps(loaded))
    assert (again.batch_size, again.caption(pictures)) == (3, loaded.caption(pictures))
    with pytest.raises(TypeError, match=r"Blip2\.load"):
        pickle.dumps(blip2cli.Blip2(loaded.model))


def test_a_forked_process_is_told_to_load_its_own(
    model: blip2cli.Blip2, pictures: list[str]
) -> None:
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()

    def ask() -> None:
        for call in (model.caption, model.embed, model.embed_texts):
            try:
                call(pictures)
            except RunError as error:
                said.put(str(error))

    child = context.Process(target=ask)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert all("load it in each process" in said.get() for _ in range(3))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "F", "1"])
def test_every_pillow_mode(model: blip2cli.Blip2, pictures: list[str], mode: str) -> None:
    picture = Image.open(pictures[0]).convert(mode)
    assert model.embed(picture).shape == (1, 32)


def test_answers_come_by_image_then_question(model: blip2cli.Blip2, pictures: list[str]) -> None:
    rows = model.ask(pictures[:2], ["what?", "how many?"], max_new_tokens=3)
    asked = [(row["file_name"], row["question"]) for row in rows]
    assert asked == [(name, q) for name in pictures[:2] for q in ("what?", "how many?")]
    (one,) = model.ask(pictures[1], "what?", max_new_tokens=3)
    assert one["answer"] == rows[2]["answer"]


def test_embeddings(model: blip2cli.Blip2, pictures: list[str]) -> None:
    vectors = model.embed(pictures)
    assert vectors.shape == (3, 32)
    assert vectors.dtype == np.float32
    assert not np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(model.embed(pictures[1])[0], vectors[1])
    assert model.embed(pictures, kind="qformer", pool="none").shape == (3, 12 * 32)
    assert model.embed([]).shape == (0, 32)


def test_embeddings_of_texts_and_pairs(
    model: blip2cli.Blip2, retrieval: blip2cli.Blip2, pictures: list[str]
) -> None:
    texts = ["a cat", "two red cars", "a tree"]
    language = model.embed_texts(texts)
    assert (language.shape, language.dtype) == ((3, 32), np.float32)
    assert np.array_equal(model.embed_texts("a tree")[0], language[2])
    assert model.embed_texts([]).shape == (0, 0)
    projected = retrieval.embed_texts(texts, normalize=True, dtype="float16")
    assert (projected.shape, projected.dtype) == ((3, 16), np.float16)
    # The contrastive score: the best of an image's queries.
    queries = retrieval.embed(pictures, "projection", "none").reshape(3, 12, 16)
    scores = (queries @ retrieval.embed_texts(texts).T).max(axis=1)
    features = retrieval.model.features(torch.from_numpy(np.stack(pixels(retrieval, pictures))))
    assert retrieval.model.retrieval is not None
    for number, text in enumerate(texts):
        pairs = [Pair(image, text) for image in range(3)]
        want = retrieval.model.retrieval.contrastive_scores(features, pairs)
        assert scores[:, number] == pytest.approx(want.numpy(), abs=1e-5)
    both = retrieval.embed(pictures, "multimodal", text=texts[:2])
    assert both.shape == (6, 32)
    assert np.array_equal(retrieval.embed(pictures[1], "multimodal", text=texts[1])[0], both[3])
    with pytest.raises(OptionError, match="no kind language"):
        retrieval.embed_texts("a", "language")
    with pytest.raises(OptionError, match="is a retrieval model"):
        retrieval.caption(pictures)


def pixels(model: blip2cli.Blip2, pictures: list[str]) -> list[np.ndarray]:  # type: ignore[type-arg]
    return [
        to_uint8(decode(Path(name).read_bytes()).image, model.model.spec).numpy()
        for name in pictures
    ]


def test_images_that_cannot_be_used_are_named(model: blip2cli.Blip2, tmp_path: Path) -> None:
    missing = str(tmp_path / "none.png")
    with pytest.raises(ImageError, match=r"none\.png: ") as caught:
        model.caption([missing])
    assert caught.value.error_type == "missing"


def test_unknown_options_are_refused(model: blip2cli.Blip2, pictures: list[str]) -> None:
    with pytest.raises(OptionError, match="max_tokens is no decoding option; there are max_new"):
        model.caption(pictures, max_tokens=3)
    with pytest.raises(OptionError, match="no kind projection"):
        model.embed(pictures, kind="projection")


def test_the_package_imports_nothing_heavy() -> None:
    program = (
        "import sys, blip2cli\n"
        "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'pyarrow'} & set(sys.modules)\n"
        "print(heavy)\n"
        "try: blip2cli.nothing\n"
        "except AttributeError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "set()\nmodule 'blip2cli' has no attribute 'nothing'\n"


def test_answers_may_be_chosen(model: blip2cli.Blip2, pictures: list[str]) -> None:
    rows = model.ask(pictures, "what?", choices=["a cat", "two", "a"], norm="mean")
    assert {row["answer"] for row in rows} <= {"a cat", "two", "a"}
    for row in rows:
        assert [one["choice"] for one in row["probabilities"]] == ["a cat", "two", "a"]
        assert sum(one["probability"] for one in row["probabilities"]) == pytest.approx(1, abs=1e-6)
        assert 0 < row["choice_mass"] < 1
        assert "choice_scores" not in row
    (row,) = model.ask(pictures[:1], "what?", choices=["a", "b"], norm="pmi", choice_scores=True)
    assert list(row["choice_scores"][0]) == ["choice", "logprob", "tokens", "blank_logprob"]
    with pytest.raises(OptionError, match="twice"):
        model.ask(pictures, "what?", choices=["a", "a"])
    with pytest.raises(OptionError, match="retrieval model"):
        model.ask(pictures, choices=["a", "b"])


def test_captions_are_ranked_by_a_model_beside_it(pictures: list[str]) -> None:
    model = blip2cli.Blip2.load("tiny", device="cpu", rank_with="tiny-itm")
    several = {"num_beams": 3, "num_captions": 3}
    rows = model.caption(pictures, **several, min_match=0.5)
    for row in rows:
        assert row["candidates"][0]["match"] == row["match"]
        assert row["guess"] == row["candidates"][0]["text"]
        assert (row["caption"] is None) == (row["match"] < 0.5) == (row["flag"] == "abstained")
    again = pickle.loads(pickle.dumps(model))
    assert again.caption(pictures, **several, min_match=0.5) == rows
    plain = blip2cli.Blip2.load("tiny", device="cpu")
    with pytest.raises(OptionError, match="min_match is about scores of a retrieval model"):
        plain.caption(pictures, min_match=0.5)
