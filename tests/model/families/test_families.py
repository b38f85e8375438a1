"""The table of language model families."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from blip2cli.errors import ModelError, OptionError
from blip2cli.model.families import (
    FAMILIES,
    LLAMA,
    OPT,
    RETRIEVAL,
    T5,
    WRITERS,
    Family,
    language_family,
)


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, blip2cli.model.families; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_families_are_told_apart_by_every_name() -> None:
    for names in (
        [family.name for family in FAMILIES],
        [family.lavis_key for family in FAMILIES],
        [family.label for family in FAMILIES],
        [family.model_type for family in WRITERS],
    ):
        assert len(set(names)) == len(names)


def test_a_language_model_has_its_family() -> None:
    assert language_family({}) is OPT  # transformers' default
    assert language_family({"model_type": "t5"}) is T5
    assert language_family({"model_type": "llama"}) is LLAMA
    assert language_family({"model_type": "bert"}) is None
    assert RETRIEVAL not in WRITERS


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_the_same_in_another_process(family: Family) -> None:
    assert pickle.loads(pickle.dumps(family)) == family


def test_only_t5_refuses_float16() -> None:
    with pytest.raises(OptionError, match="overflow float16") as error:
        T5.check_dtype("float16")
    assert error.value.field == "dtype"
    T5.check_dtype("bfloat16")
    for family in (OPT, LLAMA, RETRIEVAL):
        family.check_dtype("float16")


def test_the_config_says_size_and_positions() -> None:
    opt = OPT.config_class.read({"hidden_size": 64, "word_embed_proj_dim": 32})
    assert (opt.width, opt.embed_width, opt.positions, opt.end_tokens) == (64, 32, 2048, (2,))
    t5 = T5.config_class.read({"d_model": 64, "eos_token_id": 7})
    assert (t5.width, t5.embed_width, t5.positions, t5.end_tokens) == (64, 64, None, (7,))
    assert opt.size.width == t5.size.width == 64


def test_llamas_config_reads_positions_of_every_age() -> None:
    read = LLAMA.config_class.read
    for values in ({"rope_theta": 5e5}, {"rope_parameters": {"rope_theta": 5e5}}):
        assert read(values).theta == 5e5  # type: ignore[attr-defined]
    assert read({"rope_scaling": None}).theta == 10000.0  # type: ignore[attr-defined]
    for name in ("rope_scaling", "rope_parameters"):
        with pytest.raises(ModelError, match="stretches its positions by linear"):
            read({name: {"type": "linear", "factor": 2.0}})
    with pytest.raises(ModelError, match="num_key_value_heads: 5, which do not divide"):
        read({"num_attention_heads": 32, "num_key_value_heads": 5})
