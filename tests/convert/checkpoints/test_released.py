"""All eleven released BLIP-2 checkpoints, at full size: every name and shape, and the settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers.models.blip_2.configuration_blip_2 import Blip2Config
from transformers.models.blip_2.modeling_blip_2 import (
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
)

from blip2cli.convert.checkpoints import CheckpointOptions
from blip2cli.convert.checkpoints.from_lavis import assemble
from blip2cli.convert.checkpoints.huggingface import write_config
from blip2cli.convert.checkpoints.lavis_file import POSITION_IDS, lavis_weights
from blip2cli.convert.checkpoints.released import RELEASED, Released
from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.config import read_config
from blip2cli.model.checkpoint.model_types import BLIP_2
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.families import OPT, RETRIEVAL, T5
from blip2cli.model.loading.empty_model import empty_model
from blip2cli.model.tokenizer.text import load_codec
from blip2cli.system.library_logging import silence_libraries
from tests.convert.checkpoints.full_size import (
    language_folder,
    released_file,
    vision_file,
    vision_file_l,
)
from tests.convert.checkpoints.helpers import convert
from tests.convert.checkpoints.lavis import Size, saved_shapes

BLIP_2_FILES = [one for one in RELEASED if one.model_type is BLIP_2]
WITH_G = [one for one in BLIP_2_FILES if one.vision_file == "eva_vit_g.pth"]
WITH_L = [one for one in BLIP_2_FILES if one.vision_file == "clip_vit_L.pth"]
KEPT_BY_TRANSFORMERS = ("temp", "Qformer.cls.")


def name(released: Released) -> str:
    return f"{released.model}-{released.type}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The language models and the vision encoder, all sparse."""
    folder = tmp_path_factory.mktemp("files")
    vision_file(folder)
    for one in {released.language_model for released in BLIP_2_FILES}:
        language_folder(one, folder / one.partition("/")[2])
    return folder


def test_there_are_eleven() -> None:
    assert len(BLIP_2_FILES) == 11
    assert len({one.file for one in BLIP_2_FILES}) == 11
    assert (len(WITH_G), len(WITH_L)) == (9, 2)


@pytest.mark.parametrize("released", WITH_G, ids=name)
def test_every_weight_has_its_place_and_every_place_its_weight(
    released: Released, files: Path, tmp_path: Path
) -> None:
    source = released_file(released, tmp_path)
    assert source.stat().st_blocks * 512 < 1 << 24  # sparse indeed
    made = assemble(
        CheckpointOptions(
            (str(source),),
            "",
            language_model=str(files / released.language_model.partition("/")[2]),
            vision_weights=None if released.holds_vision else str(files / "eva_vit_g.pth"),
        )
    )
    assert made.notes[0] == f"Read as LAVIS's {released.model} {released.type}."
    assert made.config["dtype"] == "float32"  # the one precision that holds all that is there
    write_config(made.config, tmp_path, None)
    config = Blip2Config.from_pretrained(tmp_path)
    build = Blip2ForImageTextRetrieval if made.kind is RETRIEVAL else Blip2ForConditionalGeneration
    with torch.device("meta"), silence_libraries():
        model = build(config)
    demanded = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    got = {name: weight.shape for name, weight in made.weights.items()}
    tied = demanded.keys() - got.keys()
    assert tied <= {
        "language_model.lm_head.weight",
        "language_model.encoder.embed_tokens.weight",
        "language_model.decoder.embed_tokens.weight",
    }
    assert ("language_model.lm_head.weight" in got) == (made.kind is T5)
    assert got == {name: shape for name, shape in demanded.items() if name not in tied}

    size = Size(image=released.image_size)
    saved = saved_shapes(released.kind.name, size, released.width, vision=True)
    back = lavis_weights(made.weights, made.kind, 512).weights
    assert {name: weight.shape for name, weight in back.items()} == {
        name: shape for name, shape in saved.items() if not name.startswith(KEPT_BY_TRANSFORMERS)
    }
    assert POSITION_IDS in back


@pytest.mark.parametrize("released", WITH_L, ids=name)
def test_the_two_with_clips_encoder_have_every_weight_too(
    released: Released, files: Path, tmp_path: Path
) -> None:
    language = str(files / released.language_model.partition("/")[2])
    source = str(released_file(released, tmp_path))
    with pytest.raises(ModelError, match=r"no vision encoder; add vision_weights clip_vit_L\.pth"):
        assemble(CheckpointOptions((source,), "", language_model=language))
    vision = str(vision_file_l(tmp_path))
    options = CheckpointOptions((source,), "", language_model=language, vision_weights=vision)
    made = assemble(options)
    assert made.notes[1].startswith("Only blip2cli runs it")
    net = empty_model(read_config(made.config, made.kind), "x")
    demanded = {name: tuple(weight.shape) for name, weight in net.named_parameters()}
    assert demanded == {name: weight.shape for name, weight in made.weights.items()}
    assert len(net.vision_model.encoder.layers) == 21


SETTINGS = {
    "opt": {"image_token_index": 50265, "vocab_size": 50304, "eos_token_id": 50118},
    "t5": {"image_token_index": 32100, "vocab_size": 32128, "dense_act_fn": "gelu"},
    "itm": {"image_token_index": 30523, "image_text_hidden_size": 256},
}


@pytest.mark.parametrize("released", WITH_G, ids=name)
def test_settings_are_those_of_the_published_models(released: Released, tmp_path: Path) -> None:
    write_config(released.config(released.image_size, 32), tmp_path, None)
    config = Blip2Config.from_pretrained(tmp_path)
    for key, value in SETTINGS[released.kind.name].items():
        part = config if hasattr(config, key) and key != "vocab_size" else config.text_config
        assert getattr(part, key) == value, key
    assert config.num_query_tokens == 32
    assert config.vision_config.image_size == (364 if released.holds_vision else 224)
    assert config.vision_config.layer_norm_eps == 1e-6
    assert config.qformer_config.vocab_size == (30523 if released.kind is RETRIEVAL else 30522)
    assert config.qformer_config.use_qformer_text_input == (released.kind is RETRIEVAL)
    if released.kind is T5:
        assert config.text_config.is_gated_act
        assert not config.text_config.scale_decoder_outputs


@pytest.mark.parametrize("released", [WITH_G[0], WITH_G[4], WITH_G[7]], ids=name)
def test_tokenizer_and_processor_come_from_the_language_model(
    released: Released, files: Path, tmp_path: Path
) -> None:
    source = released_file(released, tmp_path)
    options = CheckpointOptions(
        (str(source),),
        "",
        language_model=str(files / released.language_model.partition("/")[2]),
        vision_weights=str(files / "eva_vit_g.pth"),
    )
    made = assemble(options)
    folder = tmp_path / "out"
    folder.mkdir()
    made.write_small_files(folder)
    write_config(made.config, folder, None)
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    checkpoint = inspect_checkpoint(folder)
    assert checkpoint.family == released.kind
    assert checkpoint.image_processor["size"] == {"height": 224, "width": 224}
    assert json.loads((folder / "processor_config.json").read_text())["num_query_tokens"] == 32
    codec = load_codec(checkpoint, Blip2Config.from_pretrained(folder).text_config)
    token = {"opt": 50265, "t5": 32100, "itm": 30523}[released.kind.name]
    assert codec.tokenizer.get_vocab()["<image>"] == token
    ids = codec.encode("madeup5" if released.kind is not RETRIEVAL else "cats")
    if released.kind is OPT:
        assert ids[0] == 2  # </s> begins every prompt
    elif released.kind is T5:
        assert ids == (5, 1)
    else:
        assert ids == (101, 2000, 102)
        assert codec.tokenizer.get_vocab()["[DEC]"] == 30522


def test_another_tokenizer_than_the_model_was_trained_with_is_refused(
    files: Path, tmp_path: Path
) -> None:
    language = tmp_path / "opt"
    language.mkdir()
    for file in (files / "opt-2.7b").iterdir():
        (language / file.name).symlink_to(file)
    vocabulary = json.loads((language / "vocab.json").read_text())
    (language / "vocab.json").unlink()
    vocabulary = {word: number for word, number in vocabulary.items() if number < 50200}
    (language / "vocab.json").write_text(json.dumps(vocabulary))
    source = released_file(WITH_G[0], tmp_path)
    with pytest.raises(ModelError, match="give the language model that it was trained with"):
        convert(
            source,
            tmp_path / "out",
            language_model=language,
            vision_weights=files / "eva_vit_g.pth",
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, "opt"]
