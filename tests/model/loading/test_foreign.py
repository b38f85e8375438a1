"""Checkpoints of other tools: quantized, with adapters, pickled, with more or less in them."""

from __future__ import annotations

import io
import json
import re
import tarfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration

import blip2cli
from blip2cli.cli.terminal.console import Console
from blip2cli.errors import ModelError, OptionError
from blip2cli.images.preprocess import normalize
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.loading.load import load_model
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.quantize.int8_layers import Int8Linear, max_exact_level
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    DecodeOptions,
    Dtype,
    ModelOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.events import Event, Remark
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.system.library_logging import silence_libraries
from blip2cli.tasks.caption import CaptionTask
from tests.convert.checkpoints.helpers import convert, tensors
from tests.foreign_checkpoints import (
    Held,
    configured,
    four_bits,
    fp8,
    llm_int8,
    quantized,
    rewritten,
    with_lora,
)
from tests.model.conftest import images as drawn
from tests.model.conftest import plain

BNB = {"quant_method": "bitsandbytes"}
FINEGRAINED = {"quant_method": "fp8", "weight_block_size": [16, 16]}
FORMATS: dict[str, tuple[Any, dict[str, Any] | None]] = {
    "LLM.int8": (llm_int8, BNB | {"load_in_8bit": True}),
    "LLM.int8 without a word": (llm_int8, None),
    "NF4": (four_bits, BNB | {"load_in_4bit": True}),
    "NF4 nested": (partial(four_bits, nested=True), BNB | {"load_in_4bit": True}),
    "NF4 as bfloat16": (partial(four_bits, storage=torch.bfloat16), BNB),
    "FP8 by row": (fp8, {"quant_method": "compressed-tensors"}),
    "FP8 of one scale": (partial(fp8, scales="one"), None),
    "FP8 in blocks": (partial(fp8, scales="blocks"), FINEGRAINED),
}


def load(directory: Path, dtype: Dtype = "float32", quantize: Any = None) -> Blip2:
    options = ModelOptions(str(directory), device="cpu", dtype=dtype, quantize=quantize)
    return Blip2.load(options)


def both(directory: Path) -> list[Callable[[], object]]:
    """The two commands that read a model; each is to refuse what the other refuses."""
    return [lambda: load(directory), lambda: convert(directory, directory.parent / "converted")]


@pytest.mark.parametrize(
    ("name", "family"), [*((name, "opt") for name in FORMATS), ("LLM.int8", "t5"), ("NF4", "t5")]
)
def test_weights_quantized_by_others_are_what_they_stand_for(
    name: str, family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    how, settings = FORMATS[name]
    source: Path = request.getfixturevalue(f"{family}_directory")
    directory, exact = quantized(source, tmp_path / "quantized", how, settings)
    held = plain(directory)
    loaded = held.state_dict()
    assert held.remarks == ()
    assert any(
        not torch.equal(exact[n], w) for n, w in load_file(source / "model.safetensors").items()
    )
    for weight_name, weight in exact.items():
        # The last bit of a product may depend on the order of its factors.
        torch.testing.assert_close(loaded[weight_name], weight, rtol=3e-7, atol=0)
    convert(directory, tmp_path / "copy")
    copied = tensors(tmp_path / "copy")
    assert all(torch.equal(copied[n], loaded[n]) for n in exact)
    # Held against transformers' own classes with the numbers that are stood for.
    with silence_libraries():
        theirs = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "copy").eval()
    ours, pixels = load(directory), drawn(2)
    with torch.inference_mode():
        expected = theirs.vision_model(normalize(pixels, ours.spec, torch.float32))[0]
    torch.testing.assert_close(ours.features(pixels).image_embeds, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(max_exact_level() == 0, reason="this torch has no such products here")
def test_numbers_of_bitsandbytes_are_multiplied_as_they_are(
    opt_directory: Path, tmp_path: Path
) -> None:
    directory, exact = quantized(opt_directory, tmp_path / "int8", llm_int8)
    numbers, reference = (
        load(directory, quantize="int8"),
        rewritten(opt_directory, tmp_path / "exact", lambda held: exact),
    )
    layers = [each for each in numbers.model.modules() if isinstance(each, Int8Linear)]
    assert len(layers) > 5
    pixels = drawn(4)
    one, two = (model.features(pixels).query_output for model in (numbers, load(reference)))
    # States are rounded too: 1 part in 254 of a row's largest number, at each of a dozen layers.
    assert (one - two).abs().max() < 0.1 * two.abs().max()
    # The same numbers, and scales that differ in their last bit.
    again = load(reference, quantize="int8").features(pixels).query_output
    torch.testing.assert_close(one, again, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("extra", "settings", "said"),
    [
        ({"qweight": torch.int32, "qzeros": torch.int32, "g_idx": torch.int32}, None, "GPTQ"),
        ({"qweight": torch.int32, "qzeros": torch.int32}, {"quant_method": "awq"}, "AWQ"),
        ({"W_q": torch.uint8}, {"quant_method": "hqq"}, "HQQ"),
        ({"weight_packed": torch.int32}, None, "compressed-tensors"),
        ({"weight": torch.int8, "weight_scales": torch.float16}, None, "EETQ"),
        ({"weight": torch.int8}, {"quant_method": "mystery"}, "quantized by mystery"),
        ({"weight": torch.int8}, None, "as int8, where numbers with a fraction belong"),
        ({"weight": torch.float8_e4m3fn}, None, "as float8_e4m3fn, where"),
        ({"weight": torch.int64}, None, "as int64, where"),
        ({"weight": torch.bool}, None, "as bool, where"),
    ],
)
def test_what_is_quantized_in_another_way_is_named(
    extra: dict[str, torch.dtype],
    settings: dict[str, Any] | None,
    said: str,
    opt_directory: Path,
    tmp_path: Path,
) -> None:
    layer = "language_model.model.decoder.layers.1.fc1."

    def change(held: Held) -> None:
        weight = held.pop(f"{layer}weight")
        for name, dtype in extra.items():
            held[layer + name] = torch.ones(weight.shape).to(dtype)

    directory = rewritten(opt_directory, tmp_path / "foreign", change)
    if settings is not None:
        configured(directory, lambda config: config.update(quantization_config=settings))
    for read in both(directory):
        with pytest.raises(ModelError, match=said) as caught:
            read()
        assert "use a copy of the model in bfloat16" in str(caught.value)


def test_layouts_of_gpus_are_named(opt_directory: Path, tmp_path: Path) -> None:
    directory, _ = quantized(opt_directory, tmp_path / "int8", llm_int8)
    turing = torch.tensor(2, dtype=torch.uint8)
    held = load_file(directory / "model.safetensors")
    held |= {name: turing.clone() for name in held if name.endswith("weight_format")}
    save_file(held, directory / "model.safetensors")
    for read in both(directory):
        with pytest.raises(ModelError, match="layout of a GPU"):
            read()


@pytest.mark.parametrize("settings", [{"blocksize": 10**12}, {"blocksize": 0}, {"shape": "x"}])
def test_parts_that_do_not_fit_together_are_named(
    settings: dict[str, Any], opt_directory: Path, tmp_path: Path
) -> None:
    directory, _ = quantized(opt_directory, tmp_path / "nf4", four_bits)
    file = directory / "model.safetensors"
    held = load_file(file)
    name = next(name for name in held if "quant_state" in name)
    state = json.loads(bytes(held[name].tolist())) | settings
    held[name] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    save_file(held, file)
    for read in both(directory):
        with pytest.raises(ModelError, match="quantized, with parts that do not fit together"):
            read()


def test_a_configuration_that_says_quantized_of_plain_weights_is_remarked(
    opt_directory: Path, tmp_path: Path
) -> None:
    directory = rewritten(opt_directory, tmp_path / "plain", lambda held: None)
    configured(directory, lambda config: config.update(quantization_config=BNB))
    said = "config.json says that the weights are quantized (bitsandbytes), but they are plain"
    (remark,) = load(directory).model.remarks
    assert remark.startswith(said)
    (note,) = convert(directory, tmp_path / "out").notes
    assert said[1:] in note
    assert "quantization_config" not in (tmp_path / "out" / "config.json").read_text()


def peft_names(held: Held) -> Held:
    return {f"base_model.model.{name}": weight for name, weight in held.items()}


def wrapped(held: Held) -> None:
    for name in [name for name in held if name.endswith("fc1.weight")]:
        held[name.replace("weight", "base_layer.weight")] = held.pop(name)
    with_lora(held)


def saved_modules(held: Held) -> None:
    head = held["language_projection.weight"]
    held["language_projection.modules_to_save.default.weight"] = head + 1


@pytest.mark.parametrize("change", [with_lora, peft_names, wrapped, saved_modules])
def test_adapters_in_the_weights_are_refused(
    change: Callable[[Held], Held | None], opt_directory: Path, tmp_path: Path
) -> None:
    directory = rewritten(opt_directory, tmp_path / "lora", change)
    for read in both(directory):
        with pytest.raises(ModelError, match=r"an adapter of PEFT, such as LoRA .* merge it into"):
            read()


@pytest.mark.parametrize("prefix", ["model.", "blip2.", "module.", "_orig_mod.", "module.model."])
def test_prefixes_of_training_are_taken_off(
    prefix: str, opt_directory: Path, tmp_path: Path
) -> None:
    directory = rewritten(
        opt_directory, tmp_path / "m", lambda held: {prefix + n: w for n, w in held.items()}
    )
    loaded = plain(directory).state_dict()
    for name, weight in load_file(opt_directory / "model.safetensors").items():
        assert torch.equal(loaded[name], weight)


def test_a_file_without_weights_is_named(opt_directory: Path, tmp_path: Path) -> None:
    directory = rewritten(opt_directory, tmp_path / "m", lambda held: {})
    for read in both(directory):
        with pytest.raises(ModelError, match=r"lacks 11. weights of the model"):
            read()


@pytest.mark.parametrize("wrapping", [None, "state_dict", "model", "module"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_of_any_age_are_read(
    zipped: bool, wrapping: str | None, opt_directory: Path, tmp_path: Path
) -> None:
    def pickled(held: Held) -> Held:
        # With requires_grad, as the values of named_parameters() are.
        own = {name: torch.nn.Parameter(weight) for name, weight in held.items()}
        value = own if wrapping is None else {wrapping: own, "epoch": 3}
        torch.save(
            value, tmp_path / "m" / "pytorch_model.bin", _use_new_zipfile_serialization=zipped
        )
        return held

    directory = rewritten(opt_directory, tmp_path / "m", pickled)
    (directory / "model.safetensors").unlink()
    loaded = plain(directory).state_dict()
    for name, weight in load_file(opt_directory / "model.safetensors").items():
        assert torch.equal(loaded[name], weight)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": {"b": 1}}, "holds something else than named weights"),
        ({"a": torch.ones(2).to_sparse()}, "holds something else than named weights"),
        ({"a": torch.ones(2, device="meta")}, "holds something else than named weights"),
        ([torch.ones(2)], "holds something else than named weights"),
        (Path("x"), r"holds more than weights \(pathlib"),
    ],
)
def test_pickles_of_other_things_are_named(
    value: object, said: str, opt_directory: Path, tmp_path: Path
) -> None:
    directory = rewritten(opt_directory, tmp_path / "m", lambda held: None)
    (directory / "model.safetensors").unlink()
    torch.save(value, directory / "pytorch_model.bin")
    for read in both(directory):
        with pytest.raises(ModelError, match=said):
            read()


def test_archives_of_torch_with_code_in_them_are_named(opt_directory: Path, tmp_path: Path) -> None:
    directory = rewritten(opt_directory, tmp_path / "m", lambda held: None)
    (directory / "model.safetensors").unlink()
    file = directory / "pytorch_model.bin"
    with tarfile.open(file, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(ModelError, match=r"is in the tar format of torch before 0\.2, which is"):
        load(directory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its deprecation
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(file))
    with pytest.raises(ModelError, match="is a TorchScript archive, which is not read; use a safe"):
        load(directory)


def more(*names: str) -> Callable[[Held], None]:
    return lambda held: held.update({name: torch.ones(2) for name in names})


@pytest.mark.parametrize(
    "change",
    [
        more("language_model.model.decoder.layers.2.fc1.weight"),
        more("odd.bias", "vision_model.encoder.layers.7.layer_norm1.bias"),
        more("qformer.embeddings.word_embeddings.weight"),
    ],
    ids=["layer", "several", "instructions"],
)
def test_weights_of_another_model_are_refused(
    change: Callable[[Held], None], opt_directory: Path, tmp_path: Path
) -> None:
    directory = rewritten(opt_directory, tmp_path / "more", change)
    for read in both(directory):
        with pytest.raises(ModelError, match="of another model than its"):
            read()


def test_biases_that_the_configuration_leaves_out_are_refused(
    opt_directory: Path, tmp_path: Path
) -> None:
    directory = rewritten(opt_directory, tmp_path / "biased", lambda held: None)
    configured(directory, lambda config: config["text_config"].update(enable_bias=False))
    with pytest.raises(ModelError, match=r"of another model .* \(language_model"):
        load(directory)


def test_tensors_that_nothing_uses_are_named_and_harmless_ones_are_not(
    opt_directory: Path, tmp_path: Path
) -> None:
    names = ["ema.step", "extra_head.weight"]
    harmless = ["qformer.embeddings.position_ids", "itm_head.weight", "text_projection.bias"]
    directory = rewritten(opt_directory, tmp_path / "m", more(*names, *harmless))
    assert load(directory).model.remarks == (
        "2 tensors in the model's files are used by nothing (ema.step, extra_head.weight)",
    )
    done = convert(directory, tmp_path / "out")
    assert done.notes == [f"Left out, as the model has no place for it: {', '.join(names)}."]


def test_remarks_are_printed_once_and_warned_of_in_python(
    opt_directory: Path, tmp_path: Path, images: Path
) -> None:
    directory = rewritten(opt_directory, tmp_path / "m", more("ema\x1b[31m.step"))
    said = "1 tensor in the model's files is used by nothing (ema"
    options = RunOptions(
        SourceOptions((str(images),)),
        ModelOptions(str(directory), device="cpu"),
        output=OutputOptions(str(tmp_path / "rows.jsonl")),
    )
    stream, events = io.StringIO(), []
    console = Console(stream, quiet=False, verbosity=0, list_failures=False)

    def listen(event: Event) -> None:
        events.append(event)
        console(event)

    run(Job(ImageItems(), CaptionTask(), options), listen)
    (remark,) = [event.text for event in events if isinstance(event, Remark)]
    assert remark.startswith(said)
    assert stream.getvalue().count(f"Note: {said}\\x1b[31m.step).") == 1
    with pytest.warns(UserWarning, match=re.escape(said)):
        blip2cli.Blip2.load(str(directory), device="cpu")


def test_a_tensor_in_two_shards_is_refused(opt_directory: Path, tmp_path: Path) -> None:
    directory = rewritten(opt_directory, tmp_path / "m", lambda held: None)
    held = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    first, *rest = held
    parts = {"one": {first: held[first]}, "two": held}
    for name, part in parts.items():
        save_file(part, directory / f"{name}.safetensors")
    index = {"weight_map": dict.fromkeys(rest, "two.safetensors") | {first: "one.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    for read in both(directory):
        with pytest.raises(ModelError, match=f"holds {first} twice, in one.safetensors and in two"):
            read()


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_numbers_that_are_none_are_refused(
    number: float, quantize: str | None, opt_directory: Path, tmp_path: Path
) -> None:
    name = "vision_model.encoder.layers.1.mlp.fc1.weight"

    def change(held: Held) -> None:
        held[name][1, 2] = number

    directory = rewritten(opt_directory, tmp_path / "m", change)
    with pytest.raises(ModelError, match=f"numbers in {name} that are NaN or infinite; fetch"):
        load(directory, quantize=quantize)
    if quantize is None:
        for out in (tmp_path / "out", tmp_path / "out.pth"):
            with pytest.raises(ModelError, match=r"that are NaN or infinite; fetch"):
                convert(directory, out)


def test_numbers_too_large_for_float16_are_named(opt_directory: Path, tmp_path: Path) -> None:
    def change(held: Held) -> None:
        held["language_projection.bias"][0] = 1e6

    directory = rewritten(opt_directory, tmp_path / "m", change)
    with pytest.raises(OptionError, match=r"float16 cannot hold language_projection\.bias"):
        load_model(inspect_checkpoint(directory), Placement(torch.device("cpu"), torch.float16, ""))
    assert load(directory).writes


def test_precisions_may_be_mixed(opt_directory: Path, tmp_path: Path) -> None:
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    directory = rewritten(
        opt_directory,
        tmp_path / "m",
        lambda held: {n: w.to(kinds[i % 4]) for i, (n, w) in enumerate(held.items())},
    )
    loaded = plain(directory).state_dict()
    for name, weight in load_file(directory / "model.safetensors").items():
        assert torch.equal(loaded[name], weight.float())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kept", ["embedding", "head"])
def test_one_matrix_stands_for_both_where_they_are_tied(
    kept: str, tied: bool, opt_directory: Path, tmp_path: Path
) -> None:
    words, head = (
        "language_model.model.decoder.embed_tokens.weight",
        "language_model.lm_head.weight",
    )

    def change(held: Held) -> None:
        if kept == "head":
            held[head] = held.pop(words)

    directory = rewritten(opt_directory, tmp_path / "m", change)
    configured(directory, lambda config: config["text_config"].update(tie_word_embeddings=tied))
    expected = load_file(opt_directory / "model.safetensors")[words]
    if tied:
        loaded = plain(directory).state_dict()
        assert torch.equal(loaded[words], expected)
        assert torch.equal(loaded[head], expected)
        convert(directory, tmp_path / "out")
        assert torch.equal(tensors(tmp_path / "out")[words], expected)
    else:  # transformers leaves the other one random
        for read in both(directory):
            with pytest.raises(ModelError, match="lacks 1 weight of the model"):
                read()


def test_two_names_of_one_weight_agree(t5_directory: Path, tmp_path: Path) -> None:
    shared, alias = "language_model.shared.weight", "language_model.encoder.embed_tokens.weight"
    same = rewritten(
        t5_directory, tmp_path / "same", lambda held: held | {alias: held[shared].clone()}
    )
    assert torch.equal(
        plain(same).state_dict()[shared], load_file(same / "model.safetensors")[alias]
    )
    other = rewritten(
        t5_directory, tmp_path / "other", lambda held: held | {alias: held[shared] + 1}
    )
    apart = rewritten(  # neither has the name that the weight has here
        t5_directory,
        tmp_path / "apart",
        lambda held: (
            {name: weight for name, weight in held.items() if name != shared}
            | {alias: held[shared].clone(), alias.replace("encoder", "decoder"): held[shared] + 1}
        ),
    )
    for directory in (other, apart):
        for read in both(directory):
            with pytest.raises(ModelError, match=r"embed_tokens\.weight.* with different numbers"):
                read()


def test_a_token_without_an_embedding_is_named(opt_directory: Path, tmp_path: Path) -> None:
    rows = 200

    def change(held: Held) -> None:
        name = "language_model.model.decoder.embed_tokens.weight"
        held[name] = held[name][:rows].clone()

    directory = rewritten(opt_directory, tmp_path / "m", change)
    configured(directory, lambda config: config["text_config"].update(vocab_size=rows))
    model = load(directory)
    features = model.features(drawn(1))
    prompt = Prompt(0, "Question: how many cats are there?", "x")
    with pytest.raises(ModelError, match=r"the tokenizer makes the token \d+ of 'Question: how"):
        model.generate(features, [prompt], DecodeOptions(max_new_tokens=2))
    with pytest.raises(ModelError, match="has embeddings of 200 tokens"):
        model.encode_choices(["two cats and a pizza", "birds"])


def test_retrieval_models_have_the_other_half_left_out(
    retrieval_checkpoint: Path, tmp_path: Path
) -> None:
    extra = more("language_projection.weight", "language_model.lm_head.weight", "temp")
    directory = rewritten(retrieval_checkpoint, tmp_path / "m", extra)
    assert load(directory).model.remarks == (
        "1 tensor in the model's files is used by nothing (temp)",
    )


@pytest.mark.parametrize(
    ("family", "name"), [("opt", "bos_token_id"), ("t5", "decoder_start_token_id")]
)
@pytest.mark.parametrize("token", [-1, 10**6])
def test_texts_begin_with_a_token_of_the_model(
    token: int, family: str, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source: Path = request.getfixturevalue(f"{family}_directory")
    directory = rewritten(source, tmp_path / "m", lambda held: None)
    configured(directory, lambda config: config["text_config"].update({name: token}))
    with pytest.raises(ModelError, match=f"begin with token {token}, and"):
        load(directory)
