"""In lower precisions the model computes what transformers computes in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.models.blip_2 import modeling_blip_2 as blip_2

from blip2cli.images.preprocess import normalize, to_uint8
from blip2cli.model.checkpoint.embedded import embedded_path
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.loading.load import load_model
from blip2cli.model.nets.blip2 import Blip2Net, RetrievalModel
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.retrieval import Pair, Retrieval
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.tokenizer.text import load_codec
from blip2cli.model.vision.features import compute_features
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, ModelOptions
from blip2cli.system.library_logging import silence_libraries
from tests.checkpoints import QUERIES
from tests.model.conftest import images, plain

SAMPLES = Path(__file__).parents[2] / "sample_images"
HALVES = [torch.bfloat16, torch.float16]
CPU = torch.device("cpu")
TOLERANCE = {torch.bfloat16: 0.12, torch.float16: 1e-2}  # a few steps of the precision


def load(directory: Path, dtype: torch.dtype) -> Blip2Net:
    """Our model in any precision: by its options, float16 would be refused on a CPU as slow."""
    return load_model(inspect_checkpoint(directory), Placement(CPU, dtype, ""))


def pixel_values(directory: Path, dtype: torch.dtype) -> Tensor:
    spec = Blip2.load(ModelOptions(str(directory), device="cpu", dtype="float32")).spec
    return normalize(images(5), spec, dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@torch.inference_mode()
def test_features_equal_transformers(opt_directory: Path, dtype: torch.dtype) -> None:
    ours = load(opt_directory, dtype)
    with silence_libraries():
        theirs = blip_2.Blip2ForConditionalGeneration.from_pretrained(opt_directory, dtype=dtype)
    # transformers keeps the Q-Former in float32 where the rest is float16, and nowhere else.
    kept = torch.float32 if dtype == torch.float16 else dtype
    assert ours.qformer.layernorm.weight.dtype == theirs.qformer.layernorm.weight.dtype == kept
    assert plain(opt_directory, dtype).language_model.lm_head.weight.dtype == dtype
    values = pixel_values(opt_directory, dtype)
    got = compute_features(ours, values)
    want = theirs.eval().get_image_features(values)
    tolerance = {"rtol": 0, "atol": TOLERANCE[dtype]}
    vision = want.vision_outputs.last_hidden_state
    torch.testing.assert_close(got.image_embeds, vision, **tolerance)
    torch.testing.assert_close(got.language_inputs, want.pooler_output, **tolerance)
    exact = load(opt_directory, torch.float32)
    right = compute_features(exact, pixel_values(opt_directory, torch.float32)).language_inputs
    assert right.std() > 0.5
    errors = [
        (each.float() - right).square().mean() for each in (got.language_inputs, want.pooler_output)
    ]
    # Packed layers round less often; scores of attention are rounded, in ``attend``.
    assert errors[0] < 1.3 * errors[1] < 1e-3


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@torch.inference_mode()
def test_scores_equal_transformers(retrieval_checkpoint: Path, dtype: torch.dtype) -> None:
    ours = load(retrieval_checkpoint, dtype)
    with silence_libraries():
        theirs = blip_2.Blip2ForImageTextRetrieval.from_pretrained(
            retrieval_checkpoint, dtype=dtype
        ).eval()
        codec = load_codec(inspect_checkpoint(retrieval_checkpoint), theirs.config.text_config)
    values = pixel_values(retrieval_checkpoint, dtype)
    features = compute_features(ours, values)
    assert isinstance(ours, RetrievalModel)
    retrieval = Retrieval(ours, codec)
    text = "two cats and a pizza"
    pairs = [Pair(image, text) for image in range(len(values))]
    ids = torch.tensor([[theirs.config.image_token_index] * QUERIES + list(codec.encode(text))])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    every = {name: value.expand(len(values), -1) for name, value in inputs.items()}
    itc = theirs(values, **inputs).logits_per_image[:, 0]
    itm = theirs(values, **every, use_image_text_matching_head=True).logits_per_image
    tolerance = {"rtol": 0, "atol": TOLERANCE[dtype], "check_dtype": False}
    torch.testing.assert_close(retrieval.contrastive_scores(features, pairs), itc, **tolerance)
    torch.testing.assert_close(retrieval.matching_logits(features, pairs), itm, **tolerance)


def test_captions_of_tiny_in_bfloat16_equal_transformers() -> None:
    ours = Blip2.load(ModelOptions("tiny", device="cpu", dtype="bfloat16"))
    directory = embedded_path("tiny")
    with silence_libraries():
        theirs = blip_2.Blip2ForConditionalGeneration.from_pretrained(
            directory, dtype=torch.bfloat16
        ).eval()
    pictures = [Image.open(SAMPLES / name) for name in ("cats.png", "night.png", "harbor.webp")]
    pixels = torch.stack([to_uint8(picture.convert("RGB"), ours.spec) for picture in pictures])
    prompts = [Prompt(i, None, str(i)) for i in range(len(pictures))]
    got = ours.generate(ours.features(pixels), prompts, DecodeOptions())
    for number, (generated,) in enumerate(got):
        values = normalize(pixels[number : number + 1], ours.spec, torch.bfloat16)
        with silence_libraries():
            tokens = theirs.generate(pixel_values=values, max_new_tokens=30)[0].tolist()
        assert tokens[-len(generated.tokens) :] == list(generated.tokens)
        assert len(generated.tokens) > 5
