"""The image side as compiled code. Everything here is really compiled, once a model."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from blip2cli.errors import OptionError
from blip2cli.model.quantize.linear_int8 import max_exact_level
from blip2cli.model.retrieval import Pair as RetrievalPair
from blip2cli.model.vision.compiled import CACHE, SMALL_CHUNK, check_tools, chunk_size, keep_code
from blip2cli.model.vision.features import ImageFeatures
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions, Quantize
from blip2cli.pipeline.batch_threads import BatchThreads
from tests.command import environment
from tests.compiler import needs_compiler
from tests.model.conftest import Pair
from tests.model.conftest import images as pictures

CPU = torch.device("cpu")
MANY = 2 * SMALL_CHUNK + 7  # images
FIELDS = [field.name for field in dataclasses.fields(ImageFeatures)]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where compiled code is kept meanwhile."""
    folder = tmp_path_factory.mktemp("code")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, str(folder))
        yield folder


def load(directory: Path, quantize: Quantize | None = None) -> Blip2:
    return Blip2.load(
        ModelOptions(str(directory), device="cpu", dtype="float32", quantize=quantize, compile=True)
    )


@pytest.fixture(scope="module")
def ours(opt_directory: Path, code: Path) -> Blip2:
    return load(opt_directory)


def compilations() -> int:
    return sum(torch._dynamo.utils.counters["stats"].values())


def assert_same(batch: ImageFeatures, members: list[int], whole: ImageFeatures) -> None:
    assert len(batch) == len(members)
    for name in FIELDS:
        assert torch.equal(getattr(batch, name), getattr(whole, name)[members]), name


@needs_compiler
def test_features_equal_transformers_and_those_of_the_layers_alone(ours: Blip2, opt: Pair) -> None:
    with torch.no_grad():
        want = opt.theirs.get_image_features(opt.pixel_values)
    got = ours.features(opt.pixels)
    for found, wanted in (
        (got.image_embeds, want.vision_outputs.last_hidden_state),
        (got.query_output, want.qformer_outputs.last_hidden_state),
        (got.language_inputs, want.pooler_output),
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for name in FIELDS:
        torch.testing.assert_close(
            getattr(got, name), getattr(opt.features, name), rtol=1e-4, atol=1e-5
        )


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2], indirect=True)
def test_rows_keep_their_bits_in_every_batch_and_nothing_is_compiled_again(
    ours: Blip2, threads: int
) -> None:
    chance = random.Random(threads)
    before = compilations()
    assert before
    with torch._dynamo.config.patch(error_on_recompile=True):
        pixels = pictures(MANY)
        whole = ours.features(pixels)
        for size in (*range(1, 18), 31, 32, 33, 50, 64, 65, MANY, 1):
            members = chance.sample(range(MANY), size)
            assert_same(ours.features(pixels[members]), members, whole)
        assert len(ours.features(pixels[:0])) == 0
    assert compilations() == before


@needs_compiler
def test_threads_may_call_it_at_once(ours: Blip2) -> None:
    pixels = pictures(MANY)
    whole = ours.features(pixels)
    chance = random.Random(3)
    batches = [chance.sample(range(MANY), chance.randint(1, MANY)) for _ in range(60)]
    found = []
    before = compilations()

    def work(members: list[int]) -> ImageFeatures:
        return ours.features(pixels[members])

    with torch._dynamo.config.patch(error_on_recompile=True), BatchThreads(work, 3) as threads:
        for members in batches:
            threads.put(members)
            while threads.full:
                found.append(threads.take())
        while threads.pending:
            found.append(threads.take())
    for members, batch in zip(batches, found, strict=True):
        assert_same(batch, members, whole)
    assert compilations() == before


@needs_compiler
def test_models_beside_one_another_keep_their_own_code(
    ours: Blip2, opt: Pair, t5: Pair, t5_directory: Path
) -> None:
    # Their image sides have the same shapes and other numbers.
    second = load(t5_directory)
    for model, pair in ((ours, opt), (second, t5), (ours, opt)):
        got = model.features(pair.pixels).language_inputs
        torch.testing.assert_close(got, pair.features.language_inputs, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_a_retrieval_model_scores_as_it_did(retrieval_checkpoint: Path, code: Path) -> None:
    plain = Blip2.load(ModelOptions(str(retrieval_checkpoint), device="cpu", dtype="float32"))
    model = load(retrieval_checkpoint)
    pixels = pictures(9)

    def scored(model: Blip2) -> tuple[Tensor, Tensor]:
        assert model.retrieval is not None
        features = model.features(pixels)
        asked = [RetrievalPair(image, text) for image in range(9) for text in ("two cats", "a dog")]
        scores = model.retrieval.contrastive_scores(features, asked)
        return scores, model.retrieval.matching_logits(features, asked)

    for got, want in zip(scored(model), scored(plain), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@needs_compiler
@pytest.mark.skipif(max_exact_level() == 0, reason="this torch has no such products here")
def test_layers_in_eight_bits_are_compiled_around(opt: Pair, code: Path) -> None:
    plain = Blip2.load(
        ModelOptions(str(opt.directory), device="cpu", dtype="float32", quantize="int8")
    )
    model = load(opt.directory, "int8")
    want, got = plain.features(opt.pixels), model.features(opt.pixels)
    # A sum that ends in another last bit may be rounded to the next of 255 numbers.
    error = (got.image_embeds - want.image_embeds).square().mean().sqrt()
    rounding = (want.image_embeds - opt.features.image_embeds).square().mean().sqrt()
    assert 0 < float(rounding) < 0.1
    assert float(error) < float(rounding)
    members = [4, 0, 11]
    assert_same(model.features(opt.pixels[members]), members, got)


def test_large_models_have_small_chunks(opt: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    model = opt.ours.model
    assert chunk_size(model, CPU) == SMALL_CHUNK
    assert chunk_size(model, torch.device("cuda")) == 16
    monkeypatch.setattr("blip2cli.model.vision.compiled.SMALL_BELOW", 1)
    assert chunk_size(model, CPU) == 8


def test_code_is_kept_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for kept, want in (
        (str(tmp_path / "kept"), tmp_path / "kept"),
        ("relative", tmp_path / ".cache"),
        ("", tmp_path / ".cache"),
    ):
        monkeypatch.setenv(CACHE, "")
        monkeypatch.setenv("XDG_CACHE_HOME", kept)
        assert keep_code() == want / "blip2cli" / "compiled"
        assert os.environ[CACHE] == str(want / "blip2cli" / "compiled")
        assert keep_code().stat().st_mode & 0o077 == 0  # code that is run: for its owner alone
    monkeypatch.setenv(CACHE, str(tmp_path / "mine"))
    assert keep_code() == tmp_path / "mine"
    assert os.environ[CACHE] == str(tmp_path / "mine")


def test_a_cache_that_cannot_be_written_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OptionError, match=rf"set {CACHE} to a folder that can be written"):
        keep_code()


def test_tools_that_are_missing_are_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(OptionError, match=r"no-such-compiler is not there: install it, name ano"):
        check_tools(CPU)
    monkeypatch.setattr("blip2cli.model.vision.compiled.find_spec", lambda name: None)
    with pytest.raises(OptionError, match="needs the package triton: pip install triton"):
        check_tools(torch.device("cuda"))
    with pytest.raises(OptionError, match="does not work on mps; use --device cpu"):
        check_tools(torch.device("mps"))


@needs_compiler
def test_a_compiler_that_fails_is_quoted(opt_directory: Path, images: Path, tmp_path: Path) -> None:
    broken = tmp_path / "g++"
    broken.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then echo "g++ 12"; exit 0; fi\n'
        'echo "x.cpp:1: fatal error: Python.h: No such file" >&2\nexit 1\n'
    )
    broken.chmod(0o755)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "blip2cli", "caption", images, "--compile"),
            *("--workers", "0", "--model", opt_directory),
        ],
        cwd=tmp_path,
        env=environment(tmp_path, CXX=str(broken), XDG_CACHE_HOME=str(tmp_path / "cache")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Python.h: No such file" in done.stderr
    assert "leave --compile out" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_it_the_compiler_is_never_imported(tmp_path: Path) -> None:
    script = """
import sys, torch
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions
model = Blip2.load(ModelOptions("tiny", device="cpu"))
model.features(torch.zeros((1, 3, model.spec.height, model.spec.width), dtype=torch.uint8))
print([name for name in ("torch._dynamo", "torch._inductor", "blip2cli.model.vision.compiled")
       if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
