"""Models into which adapters are merged are written so that transformers reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from blip2cli.convert.checkpoints.compare import logits
from blip2cli.errors import OptionError, OutputError, SourceError
from blip2cli.model.checkpoint.resolve import resolve
from tests.adapters import Q_PROJ, adapter, low_rank, product
from tests.checkpoints import tiny_random_opt
from tests.convert.checkpoints.helpers import convert, loaded, tensors

EMBED, HEAD = "language_model.model.decoder.embed_tokens", "language_model.lm_head"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_random_opt(tmp_path_factory.mktemp("base") / "opt")


@pytest.fixture
def lora(base: Path, tmp_path: Path) -> Path:
    return adapter(tmp_path / "lora", base, low_rank(base, Q_PROJ))


def test_the_merged_model_is_read_by_transformers(base: Path, lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = convert(base, out, adapter=(f"{lora}@2",), check=True)
    assert f"Merged {lora} by 2." in done.notes
    assert done.notes[-2].startswith("Check: all ")
    change = 3 * product(low_rank(base, Q_PROJ), Q_PROJ)
    expected = load_file(base / "model.safetensors")[f"{Q_PROJ}.weight"] + change
    torch.testing.assert_close(loaded(out).state_dict()[f"{Q_PROJ}.weight"], expected)
    assert not resolve(str(out)).adapters
    convert(lora, tmp_path / "other")
    assert not torch.equal(logits(str(base)), logits(str(tmp_path / "other")))


def test_an_embedding_and_its_output_matrix_become_two(base: Path, tmp_path: Path) -> None:
    head = {name.replace(EMBED, HEAD): w for name, w in low_rank(base, EMBED).items()}
    lora, out = adapter(tmp_path / "lora", base, head), tmp_path / "out"
    convert(lora, out)
    config = json.loads((out / "config.json").read_text())
    assert config["text_config"]["tie_word_embeddings"] is False
    held = loaded(out).state_dict()
    words = load_file(base / "model.safetensors")[f"{EMBED}.weight"]
    assert torch.equal(held[f"{EMBED}.weight"], words)
    torch.testing.assert_close(held[f"{HEAD}.weight"], words + 1.5 * product(head, HEAD))
    assert torch.equal(logits(str(out)), logits(str(lora)))


def test_weights_keep_the_precision_that_they_had(base: Path, lora: Path, tmp_path: Path) -> None:
    half, out = tmp_path / "half", tmp_path / "out"
    convert(base, half, dtype="bfloat16")
    convert(half, out, adapter=(str(lora),))
    held, before = tensors(out)[f"{Q_PROJ}.weight"], tensors(half)[f"{Q_PROJ}.weight"]
    change = 1.5 * product(low_rank(base, Q_PROJ), Q_PROJ)
    assert torch.equal(held, (before.float() + change).bfloat16())
    assert {weight.dtype for weight in tensors(out).values()} == {torch.bfloat16}
    convert(half, tmp_path / "wide", adapter=(str(lora),), dtype="float32")
    wide = tensors(tmp_path / "wide")[f"{Q_PROJ}.weight"]
    torch.testing.assert_close(wide, before.float() + change, rtol=1e-6, atol=1e-6)
    convert(half, tmp_path / "int8", adapter=(str(lora),), quantize="int8")
    assert tensors(tmp_path / "int8")["query_tokens"].dtype is torch.bfloat16


def test_what_cannot_be_merged_is_refused(base: Path, lora: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="adapter is for models of transformers; convert in two"):
        convert(base, tmp_path / "out.pth", adapter=(str(lora),))
    with pytest.raises(SourceError, match="is an adapter, and LAVIS's files hold no language"):
        convert(lora, tmp_path / "out.pth")
    with pytest.raises(OutputError, match="is read for the conversion"):
        convert(base, lora, adapter=(str(lora),), overwrite=True)
