from __future__ import annotations

import pytest
import torch
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from blip2cli.tiny.kinds import KINDS, plural
from training.build import GRID, QUERIES, zero_key_bias


def test_the_tokenizer_reads_any_text_back(processor: Blip2Processor) -> None:
    for text in ("two cats on a blue background\n", "¿dónde? 🐈 \x00 عربى", "  Question: why? "):
        ids = processor.tokenizer(text).input_ids
        assert ids[0] == processor.tokenizer.bos_token_id
        assert processor.tokenizer.decode(ids[1:]) == text


def test_every_word_of_ours_is_one_token(processor: Blip2Processor) -> None:
    for kind in KINDS:
        for word in (kind, plural(kind)):
            assert len(processor.tokenizer(f" {word}").input_ids) == 2, word


def test_the_shape_is_the_real_ones(
    fresh: Blip2ForConditionalGeneration, processor: Blip2Processor
) -> None:
    config = fresh.config
    layers = fresh.qformer.encoder.layer
    crossing = [hasattr(layer, "crossattention") for layer in layers]
    assert crossing == [i % 2 == 0 for i in range(len(layers))]
    assert config.text_config.do_layer_norm_before
    assert config.vision_config.qkv_bias
    assert fresh.vision_model.embeddings.num_patches == GRID**2
    assert config.num_query_tokens == QUERIES == processor.num_query_tokens
    assert processor.tokenizer.convert_ids_to_tokens(config.image_token_index) == "<image>"
    assert config.text_config.eos_token_id == processor.tokenizer.convert_tokens_to_ids("Ċ")
    assert config.vision_config.layer_norm_eps == pytest.approx(1e-6)


def test_the_key_bias_does_not_matter(fresh: Blip2ForConditionalGeneration) -> None:
    pixels = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for layer in fresh.vision_model.encoder.layers:
            layer.self_attn.qkv.bias.normal_(generator=torch.Generator().manual_seed(1))
        before = fresh.vision_model(pixels).last_hidden_state
        zero_key_bias(fresh)
        after = fresh.vision_model(pixels).last_hidden_state
    width = fresh.config.vision_config.hidden_size
    for layer in fresh.vision_model.encoder.layers:
        assert layer.self_attn.qkv.bias[width : 2 * width].abs().max() == 0
        assert layer.self_attn.qkv.bias[:width].abs().max() > 0
    torch.testing.assert_close(after, before, atol=2e-5, rtol=1e-4)
