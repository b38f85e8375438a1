"""The published models in full size, on torch's meta device: shapes without memory.

The configurations are those of the repositories on the Hugging Face hub, as far as they differ
from transformers' defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from blip2cli.images.preprocess import PixelSpec, normalize
from blip2cli.model.checkpoint.config import Blip2Config, read_config
from blip2cli.model.decoding.requests import DecodeRequest
from blip2cli.model.decoding.session import DecoderSession
from blip2cli.model.families.opt.session import OptSession
from blip2cli.model.families.t5.config import T5Config
from blip2cli.model.families.t5.session import T5Session
from blip2cli.model.nets.blip2 import GenerationModel, RetrievalModel
from blip2cli.model.vision.features import compute_features

OPT_2_7B = {
    "model_type": "opt",
    "hidden_size": 2560,
    "word_embed_proj_dim": 2560,
    "ffn_dim": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 50304,
    "eos_token_id": 50118,
}
OPT_6_7B = OPT_2_7B | {"hidden_size": 4096, "word_embed_proj_dim": 4096, "ffn_dim": 16384}
FLAN_T5_XL = {
    "model_type": "t5",
    "vocab_size": 32128,
    "d_model": 2048,
    "d_kv": 64,
    "d_ff": 5120,
    "num_layers": 24,
    "num_decoder_layers": 24,
    "num_heads": 32,
    "feed_forward_proj": "gated-gelu",
    "dense_act_fn": "gelu",
    "is_gated_act": True,
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
    "bos_token_id": 1,
}
FLAN_T5_XXL = FLAN_T5_XL | {"d_model": 4096, "d_ff": 10240, "num_heads": 64}


@dataclass(frozen=True)
class Published:
    """One repository: its language model, image size, and what it must come to."""

    text: dict[str, Any]
    image_size: int
    image_token: int
    billions: float  # parameters, as the hub counts them
    width: int  # of what the language model reads


MODELS = {
    "blip2-opt-2.7b": Published(OPT_2_7B, 224, 50265, 3.74, 2560),
    "blip2-opt-2.7b-coco": Published(OPT_2_7B, 364, 50265, 3.75, 2560),
    "blip2-opt-6.7b": Published(OPT_6_7B, 224, 50265, 7.75, 4096),
    "blip2-opt-6.7b-coco": Published(OPT_6_7B, 364, 50265, 7.75, 4096),
    "blip2-flan-t5-xl": Published(FLAN_T5_XL, 224, 32100, 3.94, 2048),
    "blip2-flan-t5-xl-coco": Published(FLAN_T5_XL, 364, 32100, 3.94, 2048),
    "blip2-flan-t5-xxl": Published(FLAN_T5_XXL, 224, 32100, 12.23, 4096),
}


def config_of(published: Published) -> Blip2Config:
    return read_config(
        {
            "text_config": published.text,
            "vision_config": {"image_size": published.image_size},
            "image_token_index": published.image_token,
        }
    )


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> tuple[Published, GenerationModel]:
    published = MODELS[request.param]
    with torch.device("meta"):
        built = GenerationModel(config_of(published))
    return published, built.eval()


@torch.inference_mode()
def test_every_published_model_is_run_from_pixels_to_scores(
    model: tuple[Published, GenerationModel],
) -> None:
    published, built = model
    family = "t5" if published.text["model_type"] == "t5" else "opt"
    patches = (published.image_size // 14) ** 2
    assert patches + 1 == {224: 257, 364: 677}[published.image_size]
    positions = built.vision_model.embeddings.position_embedding
    assert positions.shape == (1, patches + 1, 1408)
    spec = PixelSpec.from_processor_config(
        {
            "size": {"height": published.image_size, "width": published.image_size},
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
        }
    )
    assert (spec.width, spec.height) == (published.image_size, published.image_size)
    pixels = torch.zeros(2, 3, spec.height, spec.width, dtype=torch.uint8)
    values = normalize(pixels, spec, torch.float32).to("meta")
    features = compute_features(built, values)
    assert features.image_embeds.shape == (2, patches + 1, 1408)
    assert features.language_inputs.shape == (2, 32, published.width)
    language, vocabulary = built.language_model, published.text["vocab_size"]
    session: DecoderSession = (
        T5Session(language, features.language_inputs)
        if family == "t5"
        else OptSession(language, features.language_inputs, published.image_token)
    )
    requests = [
        DecodeRequest(image, (2, *range(10, 16)), max_tokens=10, reserved_tokens=10)
        for image in range(2)
    ]
    slots = session.open_slots(session.slot_shape(requests[0]), 8)
    first = slots.prefill([0, 1], requests)
    logits = slots.decode_step(torch.tensor([*first, *[0] * 6]))
    assert logits.shape == (8, vocabulary)
    pairs = [(request.image, request.prompt) for request in requests]
    states = session.continuation_states(pairs, [0, 0, 1], [(7, 8, 9), (7,), (7, 8)], 4)
    assert session.logits(states).shape == (3, 5, vocabulary)


def test_it_is_as_large_as_the_published_one(
    model: tuple[Published, GenerationModel],
) -> None:
    published, built = model
    count = sum(parameter.numel() for parameter in built.parameters()) / 1e9
    if published.text["model_type"] == "opt":
        # One matrix reads and writes, once it is loaded; Flan-T5 has two.
        count -= published.text["vocab_size"] * published.text["hidden_size"] / 1e9
    assert count == pytest.approx(published.billions, rel=0.005)


def test_flan_t5_keeps_the_activation_that_its_configuration_names() -> None:
    # A gated T5 gets the approximate GELU from transformers; LAVIS trained with the exact one.
    text = config_of(MODELS["blip2-flan-t5-xl"]).text_config
    assert isinstance(text, T5Config)
    assert (text.activation, text.gated) == ("gelu", True)
    assert not text.scales_output


@pytest.mark.parametrize("image_size", [224, 364], ids=["itm-vit-g", "itm-vit-g-coco"])
def test_retrieval_models_have_the_published_shape(image_size: int) -> None:
    config = read_config(
        {
            "vision_config": {"image_size": image_size},
            "qformer_config": {"use_qformer_text_input": True, "vocab_size": 30523},
            "image_token_index": 30523,
        }
    )
    with torch.device("meta"):
        built = RetrievalModel(config).eval()
    patches = (image_size // 14) ** 2
    assert built.vision_model.embeddings.position_embedding.shape == (1, patches + 1, 1408)
    count = sum(parameter.numel() for parameter in built.parameters()) / 1e9
    assert count == pytest.approx(1.17, rel=0.01)
    pixels = torch.zeros(2, 3, image_size, image_size, device="meta")
    with torch.inference_mode():
        features = compute_features(built, pixels)
        assert features.image_embeds.shape == (2, patches + 1, 1408)
        words = torch.zeros(2, 9, dtype=torch.long, device="meta")
        assert built.encode_texts(words).shape == (2, 9, 768)
        output = built.encode_pairs(features.image_embeds, words, torch.arange(len(words)))
        assert output.shape == (2, 32, 768)
        assert built.itm_head(output).shape == (2, 32, 2)
        assert built.vision_projection(features.query_output).shape == (2, 32, 256)
        assert built.text_projection(built.encode_texts(words)[:, 0]).shape == (2, 256)
