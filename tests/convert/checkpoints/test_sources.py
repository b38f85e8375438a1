"""Where models are found: on the hub, in its cache, in directories of every age and layout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from blip2cli.errors import ModelError
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, ModelOptions
from tests.convert.checkpoints.full_size import bert_tokenizer, write_json
from tests.convert.checkpoints.helpers import convert, like, same, tensors
from tests.convert.checkpoints.lavis import SMALL, Size, random_state, save, saved_shapes
from tests.hub_checkpoints import older_opt, published_opt
from tests.hub_server import Hub, serve
from tests.hub_t5 import older_t5, published_t5
from tests.model.conftest import images

Make = Callable[..., Path]
BERT = "google-bert/bert-base-uncased"


@pytest.mark.parametrize(
    ("published", "older"),
    [(published_opt, older_opt), (published_t5, older_t5)],
    ids=["opt", "t5"],
)
@pytest.mark.parametrize("age", ["published", "older", "pickled"])
def test_a_hub_layout_of_any_age_can_be_converted(
    age: str, published: Make, older: Make, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    if age == "published":
        published(source)
    else:
        older(source, pickled=age == "pickled")
    convert(source, tmp_path / "out", max_shard_size="1MB")
    assert len(tensors(tmp_path / "out")) > 50
    if age == "published":
        assert same(tensors(source), tensors(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.bin"))
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        one, two = (json.loads((tmp_path / d / name).read_text()) for d in ("source", "out"))
        assert one == two
    assert written(source) == written(tmp_path / "out")


def written(directory: Path) -> list[tuple[int, ...]]:
    """The tokens a model writes about four pictures."""
    from blip2cli.model.tokenizer.fill_prompt import Prompt

    model = Blip2.load(ModelOptions(str(directory), device="cpu", dtype="float32"))
    features = model.features(images(4))
    prompts = [Prompt(number, None, str(number)) for number in range(4)]
    made = model.generate(features, prompts, DecodeOptions(max_new_tokens=6))
    return [text.tokens for (text,) in made]


def test_a_model_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    source = like("opt", tmp_path / "source")
    weights = tensors(source)
    (source / "model.safetensors").unlink()
    torch.save({k: v for k, v in weights.items() if k != "query_tokens"}, source / "x")
    (source / "x").rename(source / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"lacks 1 weight of the model \(query_tokens\)"):
        convert(source, tmp_path / "out")
    torch.save(weights | {"more": torch.ones(1)}, source / "pytorch_model.bin")
    done = convert(source, tmp_path / "out")
    assert done.notes == ["Left out, as the model has no place for it: more."]
    assert same(tensors(tmp_path / "out"), weights)


def run(home: Path, hub: Hub | None, *arguments: object) -> subprocess.CompletedProcess[str]:
    """``blip2cli convert`` in a process of its own, whose cache is ``home``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {
        "HF_HOME": str(home),
        # Port 9 discards: nothing listens, and no real host is ever contacted.
        "HF_ENDPOINT": hub.url if hub is not None else "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        [sys.executable, "-m", "blip2cli", "convert", *map(str, arguments)],
        env=inherited | settings,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_language_models_and_models_come_from_the_hub_and_then_from_its_cache(
    tmp_path: Path,
) -> None:
    bert = tmp_path / "bert"
    bert.mkdir()
    write_json(bert / "config.json", {"model_type": "bert"})
    bert_tokenizer(bert)
    (bert / "model.safetensors").write_bytes(b"not used")
    small = published_opt(tmp_path / "opt")
    size = Size(**vars(SMALL) | {"width": 1408})  # the width tells which vision encoder it had
    source = save(random_state(saved_shapes("itm", size, 0, vision=False)), tmp_path / "itm.pth")
    with serve(Hub({BERT: bert, "someone/blip2-opt": small})) as hub:
        home = tmp_path / "home"
        done = run(home, hub, source, tmp_path / "out", "--language-model", BERT)
        assert done.returncode == 2
        assert "itm.pth holds no vision encoder; add --vision-weights eva_vit_g.pth" in done.stderr
        assert hub.downloads().keys() == {"config.json", "tokenizer_config.json", "vocab.txt"}
        done = run(home, hub, "someone/blip2-opt", tmp_path / "copy")
        assert done.returncode == 0, done.stderr
    assert same(tensors(small), tensors(tmp_path / "copy"))
    done = run(home, None, source, tmp_path / "out", "--language-model", BERT)
    assert "itm.pth holds no vision encoder" in done.stderr
    done = run(home, None, source, tmp_path / "out", "--language-model", "facebook/opt-2.7b")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be reached and facebook/opt-2.7b is not in the cache" in done.stderr
