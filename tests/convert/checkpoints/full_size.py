"""Files of the released models at full size, with names, shapes and headers but hardly any bytes.

The files are sparse: their length is the real one, and what was never written takes no room.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from blip2cli.convert.checkpoints.released import Released
from tests.convert.checkpoints.lavis import Shapes, Size, saved_shapes, vision_shapes
from tests.hub_checkpoints import _tokenizer

OPT_27 = {
    "model_type": "opt", "hidden_size": 2560, "word_embed_proj_dim": 2560, "ffn_dim": 10240,
    "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 50272,
}  # fmt: skip
T5_XL = {
    "model_type": "t5", "d_model": 2048, "d_ff": 5120, "d_kv": 64, "num_heads": 32,
    "num_layers": 24, "num_decoder_layers": 24, "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip
# As their own config.json has them.
LANGUAGE_MODELS: dict[str, dict[str, object]] = {
    "facebook/opt-2.7b": OPT_27,
    "facebook/opt-6.7b": OPT_27
    | {"hidden_size": 4096, "word_embed_proj_dim": 4096, "ffn_dim": 16384},
    "google/flan-t5-xl": T5_XL,
    "google/flan-t5-xxl": T5_XL | {"d_model": 4096, "d_ff": 10240, "num_heads": 64},
}


def released_file(released: Released, folder: Path) -> Path:
    """What LAVIS published under this name."""
    size = Size(image=released.image_size, width=released.vision_width)
    shapes = saved_shapes(released.kind.name, size, released.width, released.holds_vision)
    return sparse_pth(folder / released.file, shapes)


def vision_file(folder: Path) -> Path:
    """``eva_vit_g.pth``: the classifier it is, one block deeper than BLIP-2 goes."""
    shapes = vision_shapes(Size(), depth=40)
    for name, width in (("norm", 1408), ("head", 1000)):
        shapes |= {f"{name}.bias": (width,)}
        shapes |= {f"{name}.weight": (width,) if name == "norm" else (width, 1408)}
    return sparse_pth(folder / "eva_vit_g.pth", shapes, torch.float16, wrapped=False)


def vision_file_l(folder: Path) -> Path:
    """``clip_vit_L.pth``: CLIP's own encoder, deeper than BLIP-2 goes, with its head."""
    width = 1024
    shapes: Shapes = {
        "class_embedding": (width,),
        "positional_embedding": (257, width),
        "conv1.weight": (width, 3, 14, 14),
        "proj": (width, 768),
    }
    matrices = {"attn.out_proj": (width, width), "mlp.c_fc": (4 * width, width)}
    matrices["mlp.c_proj"] = (width, 4 * width)
    for number in range(24):
        block = f"transformer.resblocks.{number}"
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width)}
        shapes |= {f"{block}.attn.in_proj_bias": (3 * width,)}
        for name, shape in matrices.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}.{norm}.{own}": (width,) for own in ("weight", "bias")}
    for norm in ("ln_pre", "ln_post"):
        shapes |= {f"{norm}.{own}": (width,) for own in ("weight", "bias")}
    return sparse_pth(folder / "clip_vit_L.pth", shapes, torch.float16, wrapped=False)


def language_folder(name: str, folder: Path) -> Path:
    """A directory with the language model of that hub id and its tokenizer."""
    folder.mkdir()
    if name == "google-bert/bert-base-uncased":
        write_json(folder / "config.json", {"model_type": "bert"})
        bert_tokenizer(folder)
        return folder
    settings = LANGUAGE_MODELS[name]
    write_json(folder / "config.json", settings)
    config = AutoConfig.for_model(**settings)
    auto = AutoModelForCausalLM if settings["model_type"] == "opt" else AutoModelForSeq2SeqLM
    with torch.device("meta"):
        model = auto.from_config(config)
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    tied |= {"lm_head.weight"} if settings["model_type"] == "opt" else set()
    shapes = {n: tuple(w.shape) for n, w in model.state_dict().items() if n not in tied}
    sparse_safetensors(folder / "model.safetensors", shapes)
    if settings["model_type"] == "opt":
        _tokenizer(folder, image=False)  # vocab.json and merges.txt, as facebook/opt-* have them
    else:
        t5_tokenizer(folder)
    return folder


def sparse_pth(
    path: Path, shapes: Shapes, dtype: torch.dtype = torch.float32, wrapped: bool = True
) -> Path:
    """A file of ``torch.save`` with these weights, all zero."""
    state = {name: torch.empty(shape, dtype=dtype) for name, shape in shapes.items()}
    with torch.serialization.skip_data():  # memory that is never touched takes no room either
        torch.save({"model": state} if wrapped else state, path)
    return path


def sparse_safetensors(path: Path, shapes: Shapes) -> Path:
    """A safetensors file in float16 of zeros, but for a one in the head, which is not tied."""
    entries, position, head = {}, 0, None
    for name, shape in shapes.items():
        if name == "lm_head.weight":
            head = position
        end = position + 2 * prod(shape)
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [position, end]}
        position = end
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + position)
        if head is not None:
            file.seek(8 + len(header) + head)
            file.write(b"\x00\x3c")
    return path


def t5_tokenizer(folder: Path) -> None:
    """A tokenizer of Flan-T5's size, 32,100 pieces."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁madeup{number}", -float(number)) for number in range(3, 32_100)]
    trained = Tokenizer(models.Unigram(pieces, unk_id=2))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    trained.save(str(folder / "tokenizer.json"))
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", **tokens})


def bert_tokenizer(folder: Path) -> None:
    """A vocabulary of BERT's size, 30,522 words, special ones in their places."""
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 2000: "cats"}
    words = [special.get(number, f"madeup{number}") for number in range(30_522)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True})


def write_json(file: Path, value: dict[str, object]) -> None:
    """Write a JSON object."""
    file.write_text(json.dumps(value), encoding="utf-8")
