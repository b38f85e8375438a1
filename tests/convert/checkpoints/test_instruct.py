"""InstructBLIP's checkpoints: from LAVIS, to LAVIS, and from transformers to transformers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.instructblip.configuration_instructblip import InstructBlipConfig
from transformers.models.instructblip.modeling_instructblip import (
    InstructBlipForConditionalGeneration,
)
from transformers.models.instructblip.processing_instructblip import InstructBlipProcessor

from blip2cli.convert.checkpoints import CheckpointOptions
from blip2cli.convert.checkpoints.from_lavis import assemble
from blip2cli.convert.checkpoints.huggingface import write_config
from blip2cli.convert.checkpoints.lavis_file import lavis_weights
from blip2cli.convert.checkpoints.released import RELEASED, Released
from blip2cli.errors import ModelError, OptionError
from blip2cli.model.checkpoint.model_types import INSTRUCT_BLIP
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.families import T5
from blip2cli.model.tokenizer.text import load_codec
from blip2cli.system.library_logging import silence_libraries
from tests.convert.checkpoints.full_size import (
    bert_tokenizer,
    language_folder,
    sparse_pth,
    sparse_safetensors,
    vision_file,
    write_json,
)
from tests.convert.checkpoints.helpers import convert, same, state_of, tensors
from tests.convert.checkpoints.lavis import Shapes, Size, qformer_shapes
from tests.instruct_checkpoints import (
    llama_tokenizer,
    tiny_random_instruct_t5,
    tiny_random_vicuna,
)

INSTRUCTED = [one for one in RELEASED if one.model_type is INSTRUCT_BLIP]


def lavis_shapes(released: Released) -> Shapes:
    """What LAVIS published of it: the Q-Former, which reads text and writes none."""
    width, hidden = 1408, 768
    shapes: Shapes = {"query_tokens": (1, 32, hidden)}
    shapes |= {f"ln_vision.{each}": (width,) for each in ("weight", "bias")}
    qformer = qformer_shapes(Size(), text=True)
    shapes |= {name: s for name, s in qformer.items() if not name.startswith("Qformer.cls.")}
    projection = "t5_proj" if released.kind is T5 else "llm_proj"
    shapes |= {f"{projection}.weight": (released.width, hidden)}
    return shapes | {f"{projection}.bias": (released.width,)}


def vicuna_folder(released: Released, folder: Path) -> Path:
    """Vicuna as it is published: 32,000 pieces, and ``<s>`` before every text."""
    folder.mkdir()
    settings = {**released.text, "vocab_size": 32000}
    write_json(folder / "config.json", settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    names = list(shapes)  # in two files: one of 26 GB may be more than a system maps
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    index = {}
    for number, half in enumerate(halves, 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        sparse_safetensors(folder / file, {name: shapes[name] for name in half})
        index |= dict.fromkeys(half, file)
    write_json(folder / "model.safetensors.index.json", {"weight_map": index})
    tokenizer = json.loads(llama_tokenizer(32000).to_str())
    text = json.dumps(tokenizer["post_processor"]).replace("</s>", "<s>").replace("[2]", "[1]")
    tokenizer["post_processor"] = json.loads(text)
    write_json(folder / "tokenizer.json", tokenizer)
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", **tokens})
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Language models, vision encoder and BERT, all sparse."""
    folder = tmp_path_factory.mktemp("files")
    vision_file(folder)
    (folder / "bert").mkdir()
    write_json(folder / "bert" / "config.json", {"model_type": "bert"})
    bert_tokenizer(folder / "bert")
    for one in INSTRUCTED:
        name = one.language_model.partition("/")[2]
        if one.kind is T5:
            language_folder(one.language_model, folder / name)
        else:
            vicuna_folder(one, folder / name)
    return folder


def test_there_are_four() -> None:
    assert len(INSTRUCTED) == 4
    assert len({one.file for one in INSTRUCTED}) == 4


@pytest.mark.external
@pytest.mark.parametrize("released", INSTRUCTED, ids=lambda one: f"{one.model}-{one.type}")
def test_every_weight_has_its_place_and_every_place_its_weight(
    released: Released, files: Path, tmp_path: Path
) -> None:
    shapes = lavis_shapes(released)
    source = sparse_pth(tmp_path / released.file, shapes)
    made = assemble(
        CheckpointOptions(
            (str(source),),
            "",
            language_model=str(files / released.language_model.partition("/")[2]),
            vision_weights=str(files / "eva_vit_g.pth"),
            qformer_tokenizer=str(files / "bert"),
        )
    )
    assert made.notes == [f"Read as LAVIS's {released.model} {released.type}."]
    folder = tmp_path / "out"
    folder.mkdir()
    made.write_small_files(folder)
    write_config(made.config, folder, None)
    with torch.device("meta"), silence_libraries():
        model = InstructBlipForConditionalGeneration(InstructBlipConfig.from_pretrained(folder))
    demanded = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    got = {name: weight.shape for name, weight in made.weights.items()}
    stacks = {f"language_model.{each}.embed_tokens.weight" for each in ("encoder", "decoder")}
    assert demanded.keys() - got.keys() <= stacks
    assert got == {name: demanded[name] for name in got}
    back = lavis_weights(made.weights, made.kind, 512, INSTRUCT_BLIP).weights
    trained = {n: w.shape for n, w in back.items() if not n.startswith("visual_encoder.")}
    assert trained == shapes

    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    checkpoint = inspect_checkpoint(folder)
    assert (checkpoint.family, checkpoint.model_type) == (released.kind, INSTRUCT_BLIP)
    codec = load_codec(checkpoint, checkpoint.model_config.text_config)
    assert codec.instructions is not None
    assert codec.instructions.encode("cats") == (101, 2000, 102)
    ids = codec.encode("madeup5")
    assert (ids[-1] == 1) if released.kind is T5 else (ids[0] == 2)
    with silence_libraries():
        theirs = InstructBlipProcessor.from_pretrained(folder)
    assert theirs.num_query_tokens == 32
    assert theirs.tokenizer.convert_tokens_to_ids("<image>") == released.image_token
    read = theirs(text="madeup5")
    assert tuple(read["input_ids"][0]) == ids


@pytest.mark.external
@pytest.mark.parametrize("make", [tiny_random_vicuna, tiny_random_instruct_t5])
def test_to_lavis_and_back(make: object, tmp_path: Path) -> None:
    assert callable(make)
    small = make(tmp_path / "small")
    convert(small, tmp_path / "lavis.pth")
    state = state_of(tmp_path / "lavis.pth")
    assert "Qformer.bert.embeddings.word_embeddings.weight" in state
    assert "Qformer.bert.encoder.layer.0.intermediate.dense.weight" in state
    convert(tmp_path / "lavis.pth", tmp_path / "back", like=small)
    before, after = tensors(small), tensors(tmp_path / "back")
    keys = {name for name in before if name.endswith("qkv.bias")}  # LAVIS has none of the keys
    assert same(*({n: w for n, w in each.items() if n not in keys} for each in (before, after)))


def test_a_copy_is_read_by_transformers(tmp_path: Path) -> None:
    small = tiny_random_vicuna(tmp_path / "small")
    convert(small, tmp_path / "copy", check=True)
    assert same(tensors(small), tensors(tmp_path / "copy"))
    with silence_libraries():
        processor = InstructBlipProcessor.from_pretrained(tmp_path / "copy")
        InstructBlipForConditionalGeneration.from_pretrained(tmp_path / "copy")
    assert processor(text="two cats")["qformer_input_ids"][0][0] == 2
    convert(small, tmp_path / "copy", overwrite=True)  # its own files are known as such


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    small = tiny_random_vicuna(tmp_path / "small")
    convert(small, tmp_path / "lavis.pth")
    text = re.compile(r".*(word_|position_)embeddings\..*|.*layer\.\d+\.(intermediate|output)\..*")
    state = state_of(tmp_path / "lavis.pth")
    plain = {name: weight for name, weight in state.items() if not text.fullmatch(name)}
    torch.save({"model": plain}, tmp_path / "plain.pth")
    with pytest.raises(ModelError, match="is of the kind InstructBLIP, and the checkpoint of the"):
        convert(tmp_path / "plain.pth", tmp_path / "out", like=small)
    with pytest.raises(OptionError, match="qformer_tokenizer is for an InstructBLIP"):
        convert(tmp_path / "plain.pth", tmp_path / "out", qformer_tokenizer=small)
