"""Retrieval models in the files of ``Salesforce/blip2-itm-vit-g``, beside its own processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.bert.tokenization_bert import BertTokenizer
from transformers.models.blip_2.modeling_blip_2 import Blip2ForImageTextRetrieval
from transformers.models.blip_2.processing_blip_2 import Blip2Processor

from blip2cli.images.preprocess import to_uint8
from blip2cli.model.retrieval import Pair
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions
from blip2cli.system.library_logging import silence_libraries
from tests.checkpoints import IMAGE_SIZE, QUERIES, tiny_random_itm

TEXTS = ("Two cats & a pizza!", "a photo of THREE dogs", "é", "a red car " * 9)
WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "two", "three", "cat"),
    *("car", "red", "##s", "&", "!", "pizza", "e"),
)


def tokens(directory: Path) -> None:
    """BERT's tokenizer as a vocabulary and its settings, without tokenizer.json."""
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "bos_token": "[DEC]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
        "model_max_length": 512,
        "processor_class": "Blip2Processor",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def padding(directory: Path) -> None:
    """A tokenizer.json that was saved while it padded and cut texts, as some published ones."""
    file = directory / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["truncation"] = {
        "direction": "Right",
        "max_length": 6,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    tokenizer["padding"] = {
        "strategy": {"Fixed": 32},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    file.write_text(json.dumps(tokenizer))


def beyond(directory: Path) -> None:
    """An image token beyond the vocabulary: no id of a text, and no row of the embedding."""
    file = directory / "config.json"
    config = json.loads(file.read_text())
    config["image_token_index"] = config["qformer_config"]["vocab_size"] + 7
    config["text_config"] = {"model_type": "opt"}
    file.write_text(json.dumps(config))


def older(directory: Path) -> None:
    """Weights that hold positions as well, which transformers no longer stores."""
    file = directory / "model.safetensors"
    weights = load_file(file)
    weights["embeddings.position_ids"] = torch.arange(64)[None]
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("change", [None, tokens, beyond, older])
@torch.inference_mode()
def test_scores_equal_those_of_the_documentation(change: Any, tmp_path: Path) -> None:
    directory = tiny_random_itm(tmp_path / "itm")
    if change is not None:
        change(directory)
    ours = Blip2.load(ModelOptions(str(directory), device="cpu", dtype="float32"))
    with silence_libraries():
        theirs = Blip2ForImageTextRetrieval.from_pretrained(directory).eval()
        processor = Blip2Processor.from_pretrained(directory)
    picture = Image.effect_noise((IMAGE_SIZE, IMAGE_SIZE), 90).convert("RGB")
    features = ours.features(to_uint8(picture, ours.spec)[None])
    pairs = [Pair(0, text) for text in TEXTS]
    assert ours.retrieval is not None
    contrast = ours.retrieval.contrastive_scores(features, pairs)
    matching = ours.retrieval.matching_logits(features, pairs)
    for number, text in enumerate(TEXTS):
        inputs = processor(images=picture, text=text, return_tensors="pt")
        assert inputs["input_ids"].shape[1] > QUERIES + 2
        itm = theirs(**inputs, use_image_text_matching_head=True).logits_per_image
        torch.testing.assert_close(matching[number], itm[0], rtol=0, atol=1e-5)
        itc = theirs(**inputs).logits_per_image
        torch.testing.assert_close(contrast[number], itc[0, 0], rtol=0, atol=1e-5)
    assert contrast.std() > 1e-3


def test_the_vocabulary_alone_is_read_as_bert_reads_it(tmp_path: Path) -> None:
    directory = tiny_random_itm(tmp_path / "itm")
    tokens(directory)
    ours = Blip2.load(ModelOptions(str(directory), device="cpu", dtype="float32"))
    theirs = BertTokenizer(str(directory / "vocab.txt"))
    for text in (*TEXTS, "", "  two   cats "):
        assert list(ours.codec.encode(text)) == theirs(text)["input_ids"]


def test_padding_and_cutting_saved_with_a_tokenizer_do_not_act(tmp_path: Path) -> None:
    directory = tiny_random_itm(tmp_path / "itm")
    before = Blip2.load(ModelOptions(str(directory), device="cpu", dtype="float32"))
    padding(directory)
    after = Blip2.load(ModelOptions(str(directory), device="cpu", dtype="float32"))
    ids = [before.codec.encode(text) for text in TEXTS]
    assert [after.codec.encode(text) for text in TEXTS] == ids
    assert min(map(len, ids)) < 6 < max(map(len, ids))
