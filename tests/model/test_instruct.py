"""InstructBLIP, with both of its language models, against transformers on one image at a time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2cli.cli.app import call
from blip2cli.doctor.examine import examine
from blip2cli.errors import ModelError, OptionError
from blip2cli.model.checkpoint.resolve import resolve
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.decoding.scoring import Likelihood
from blip2cli.model.generation import Generated
from blip2cli.model.instructions import DESCRIBE
from blip2cli.model.quantize.int8_layers import Int8Linear, max_exact_level
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, DoctorOptions, ModelOptions
from tests.adapters import adapter, low_rank
from tests.convert.checkpoints.helpers import convert
from tests.instruct_checkpoints import tiny_random_vicuna
from tests.model.instruct import Instructed, embedded, instructed

NEW = 10
QUESTION = "Question: what is in the picture? Short answer:"
TEXTS = (None, QUESTION, "a photo of", "Question: what color is it? Short answer:")
CHOICES = ("a", "a cat", "a cat and a pizza", "two", "two cats", "on a blue background")
CASES: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_new_tokens": 4},
    {"num_beams": 4, "num_captions": 2, "length_penalty": -1.0, "repetition_penalty": 1.5},
]


@pytest.fixture(scope="module")
def vicuna(tmp_path_factory: pytest.TempPathFactory) -> Instructed:
    return instructed(tiny_random_vicuna(tmp_path_factory.mktemp("instruct") / "vicuna"))


@pytest.fixture(scope="module")
def flan() -> Instructed:
    return embedded()


@pytest.fixture(params=["vicuna", "flan"])
def either(request: pytest.FixtureRequest) -> Instructed:
    value: Instructed = request.getfixturevalue(request.param)
    return value


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)) or "greedy")
def test_tokens_equal_transformers_generate_for_each_image_alone(
    either: Instructed, case: dict[str, Any]
) -> None:
    prompts = [Prompt(i, text, f"{i}") for text in TEXTS for i in range(3)]
    options = DecodeOptions(max_new_tokens=NEW, **case)
    theirs = {"num_return_sequences": 1, "max_new_tokens": NEW} | case
    theirs["num_return_sequences"] = theirs.pop("num_captions", 1)
    for prompt, texts in zip(
        prompts, either.ours.generate(either.features, prompts, options), strict=True
    ):
        want = either.generate(prompt.image, prompt.text, **theirs)
        assert [list(text.tokens) for text in texts] == want, prompt


def test_texts_vary_over_images_and_prompts(either: Instructed) -> None:
    # Otherwise the comparisons above would show little.
    options = DecodeOptions(max_new_tokens=NEW)
    count = len(either.pixels)
    found = {
        text: [
            texts[0]
            for texts in either.ours.generate(
                either.features, [Prompt(i, text, "") for i in range(count)], options
            )
        ]
        for text in TEXTS
    }
    for texts in found.values():
        assert len({text.tokens for text in texts}) >= 3
    every = [text for texts in found.values() for text in texts]
    assert len({len(text.tokens) for text in every}) >= 4


def test_a_caption_is_that_of_the_papers_instruction(either: Instructed) -> None:
    options = DecodeOptions(max_new_tokens=NEW)
    none, said = either.ours.generate(
        either.features, [Prompt(1, None, "x"), Prompt(1, DESCRIBE, "x")], options
    )
    assert none == said


@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(max_new_tokens=8),
        DecodeOptions(max_new_tokens=6, num_beams=3, num_captions=2),
        DecodeOptions(max_new_tokens=6, temperature=1.2, num_captions=2),
    ],
    ids=["greedy", "beams", "sampled"],
)
def test_texts_do_not_depend_on_the_batch(either: Instructed, options: DecodeOptions) -> None:
    chance = random.Random(3)
    members = [(image, text) for image in range(8) for text in TEXTS]
    alone: dict[tuple[int, str | None], list[Generated]] = {}
    for size in (3, 8):
        some = chance.sample(members, size)
        rows = sorted({image for image, _ in some})
        chance.shuffle(rows)
        features = either.ours.features(either.pixels[rows])
        prompts = [Prompt(rows.index(i), text, f"{i} {text}") for i, text in some]
        together = either.ours.generate(features, prompts, options)
        for (image, text), texts in zip(some, together, strict=True):
            if (image, text) not in alone:
                single = either.ours.features(either.pixels[image : image + 1])
                alone[image, text] = either.ours.generate(
                    single, [Prompt(0, text, f"{image} {text}")], options
                )[0]
            assert texts == alone[image, text], (size, image, text)


def test_choices_have_the_likelihood_of_transformers(either: Instructed) -> None:
    asked = (QUESTION, "a photo of", "what is it? Answer: ")
    prompts = [Prompt(n, text, "x") for n, text in enumerate(asked)]
    found = either.ours.score(either.features, prompts, [CHOICES] * len(prompts))
    for prompt, likelihoods in zip(prompts, found, strict=True):
        assert prompt.text is not None
        for choice, likelihood in zip(CHOICES, likelihoods, strict=True):
            text = prompt.text if either.ours.family.encoder_decoder else prompt.text.rstrip()
            total, tokens = either.score(prompt.image, text, choice)
            assert likelihood.tokens == tokens
            # Random weights are so wide that float32 itself, theirs as ours, is off by as much.
            assert likelihood.total == pytest.approx(total, abs=2e-3), (prompt, choice)
    gaps = [row[1].total - row[0].total for row in found]
    assert max(gaps) - min(gaps) > 0.1


@pytest.mark.external
def test_likelihoods_do_not_depend_on_the_batch(either: Instructed) -> None:
    members = [(image, text) for image in range(5) for text in TEXTS[1:]]
    features = either.ours.features(either.pixels[:5])
    prompts = [Prompt(image, text, "") for image, text in members]
    together: list[list[Likelihood]] = either.ours.score(
        features, prompts, [CHOICES] * len(prompts)
    )
    for number in (0, 4, 7, 14):
        image, text = members[number]
        single = either.ours.features(either.pixels[image : image + 1])
        assert either.ours.score(single, [Prompt(0, text, "")], [CHOICES]) == [together[number]]


def test_images_are_encoded_once_and_each_pair_is_read_once(
    either: Instructed, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = either.ours.features(either.pixels[:3])
    monkeypatch.setattr(either.ours.model.vision_model, "forward", None)  # would fail
    read: list[int] = []
    real = either.ours.model.encode_pairs
    monkeypatch.setattr(
        either.ours.model,
        "encode_pairs",
        lambda images, ids, owners: read.append(len(ids)) or real(images, ids, owners),
    )
    short = DecodeOptions(max_new_tokens=3)
    prompts = [Prompt(i, text, f"{i}") for i in range(3) for text in (QUESTION, None, QUESTION)]
    either.ours.generate(features, prompts, short)
    assert sum(read) == 6
    either.ours.generate(features, prompts[2:5], short)  # once more, as degenerate ones are
    either.ours.score(features, prompts[:1], [CHOICES])
    assert sum(read) == 6
    either.ours.generate(features, [Prompt(0, "a photo of", "")], short)
    assert sum(read) == 7


def test_a_prompt_that_the_qformer_has_no_positions_for_is_refused(vicuna: Instructed) -> None:
    with pytest.raises(OptionError, match="and the model has room for 64; shorten it"):
        vicuna.ours.generate(vicuna.features, [Prompt(0, "a " * 70, "x")], DecodeOptions())
    assert vicuna.ours.fits("a " * 50, 10)
    assert not vicuna.ours.fits("a " * 70, 10)


@pytest.mark.external
def test_texts_without_an_image_are_those_of_the_language_model(vicuna: Instructed) -> None:
    (states,) = vicuna.ours.text_states(["two cats"])
    ids = torch.tensor([vicuna.ours.codec.encode("two cats")])
    with torch.no_grad():
        want = vicuna.theirs.language_model.model(ids).last_hidden_state[0]
    torch.testing.assert_close(states, want, rtol=1e-4, atol=1e-5)


@pytest.mark.external
@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
        {"attention_bias": True, "mlp_bias": True},
        {"tie_word_embeddings": True},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    ],
    ids=["grouped", "biased", "tied", "theta"],
)
def test_other_settings_of_the_language_model_act(changes: dict[str, Any], tmp_path: Path) -> None:
    one = instructed(tiny_random_vicuna(tmp_path / "m", **changes), count=3)
    prompts = [Prompt(i, QUESTION, "") for i in range(3)]
    texts = one.ours.generate(one.features, prompts, DecodeOptions(max_new_tokens=NEW))
    for image, (text,) in enumerate(texts):
        assert [list(text.tokens)] == one.generate(image, QUESTION, max_new_tokens=NEW)


@pytest.mark.skipif(max_exact_level() == 0, reason="this torch has no such products here")
def test_it_runs_in_int8(vicuna: Instructed) -> None:
    options = ModelOptions(str(vicuna.directory), device="cpu", dtype="float32", quantize="int8")
    ours = Blip2.load(options)
    names = [name for name, each in ours.model.named_modules() if isinstance(each, Int8Linear)]
    assert sum("language_model" in name for name in names) == 2 * 5  # query, key and value are one
    assert not any("qformer" in name or "lm_head" in name for name in names)
    features = ours.features(vicuna.pixels)
    exact = vicuna.ours.scores(vicuna.features, QUESTION)
    close = ours.scores(features, QUESTION)
    assert (close - exact).std() < 0.2 * exact.std()
    single = ours.features(vicuna.pixels[2:3])
    assert torch.equal(ours.scores(single, QUESTION)[0], close[2])


def _without_tokenizer(directory: Path) -> None:
    for file in (directory / "qformer_tokenizer").iterdir():
        file.unlink()


def _stretched(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["rope_parameters"] = {"rope_type": "linear", "factor": 2.0}
    (directory / "config.json").write_text(json.dumps(config))


def _other_class(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    config["architectures"] = ["LlavaForConditionalGeneration"]
    (directory / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_tokenizer, r"lacks the tokenizer of its Q-Former \(qformer_tokenizer/"),
        (_stretched, r"stretches its positions by linear .* use a model with plain rotary"),
        (_other_class, "holds LLaVA, which has no Q-Former"),
    ],
)
def test_what_cannot_be_run_is_named(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    directory = tiny_random_vicuna(tmp_path / "m")
    change(directory)
    with pytest.raises(ModelError, match=message):
        _ = inspect_checkpoint(directory).model_config


@pytest.mark.external
def test_the_image_side_is_that_of_transformers(either: Instructed) -> None:
    values = either.inputs(0, None)["pixel_values"]
    with torch.no_grad():
        seen = either.theirs.vision_model(values)
    ours = either.features
    torch.testing.assert_close(ours.image_embeds[:1], seen.last_hidden_state, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.pooled[:1], seen.pooler_output, rtol=1e-4, atol=1e-5)


@pytest.mark.external
def test_doctor_finds_nothing_wrong(either: Instructed) -> None:
    report = examine(DoctorOptions(str(either.directory), device="cpu", dtype="float32"))
    assert report.failures == ()


@pytest.mark.external
def test_the_commands_run_it(vicuna: Instructed, images: Path, tmp_path: Path) -> None:
    model = ("--model", str(vicuna.directory), "--device", "cpu", "--dtype", "float32", "--quiet")
    assert call(["caption", str(images), *model, "-o", str(tmp_path / "a.jsonl")]) == 0
    said = ["ask", str(images), "--question", "how many?", "--question", "{history} what else?"]
    assert call([*said, *model, "-o", str(tmp_path / "b.jsonl")]) == 0
    asked = ["ask", str(images), "--question", "how many?", "--choices", "one,two"]
    norm = ["--choice-norm", "pmi"]
    assert call([*asked, *norm, *model, "-o", str(tmp_path / "c.jsonl")]) == 0
    assert call(["embed", str(images), "--kind", "qformer", *model, "-o", "x.jsonl"]) == 2
    rows = [
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in "abc"
    ]
    assert [len(each) for each in rows] == [5, 10, 5]
    assert {row["answer"] for row in rows[2]} <= {"one", "two"}


@pytest.mark.external
def test_an_adapter_is_merged_into_it(vicuna: Instructed, tmp_path: Path) -> None:
    layer = "language_model.model.layers.1"
    modules = [f"{layer}.self_attn.{name}_proj" for name in "qkvo"]
    modules += [f"{layer}.mlp.{name}_proj" for name in ("gate", "up", "down")]
    modules += ["qformer.encoder.layer.0.attention.attention.query", "language_projection"]
    made = low_rank(vicuna.directory, *modules)
    lora = adapter(tmp_path / "lora", vicuna.directory, made, target_modules=modules)
    convert(vicuna.directory, tmp_path / "merged", adapter=(str(lora),))
    merged = instructed(tmp_path / "merged", count=3)
    options = ModelOptions(str(vicuna.directory), device="cpu", dtype="float32")
    ours = Blip2.load(options, resolve(options.model, adapters=(str(lora),)))
    prompts = [Prompt(image, QUESTION, "") for image in range(3)]
    decode = DecodeOptions(max_new_tokens=NEW)
    texts = ours.generate(ours.features(merged.pixels), prompts, decode)
    assert texts == merged.ours.generate(merged.features, prompts, decode)
    for image, (text,) in enumerate(texts):
        assert [list(text.tokens)] == merged.generate(image, QUESTION, max_new_tokens=NEW)
    base = vicuna.ours.generate(vicuna.features, prompts, decode)
    assert texts != base


def test_many_prompts_are_read_in_portions_of_as_many_as_a_batch_size_counts(
    flan: Instructed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blip2cli.model.instructions.MAX_SLOTS", 3)
    features = flan.ours.features(flan.pixels[:4])
    prompts = [Prompt(image, text, "") for text in TEXTS for image in (3, 1, 2)]
    options = DecodeOptions(max_new_tokens=4)
    sizes: list[int] = []
    real = flan.ours.instructions._run  # type: ignore[union-attr]
    monkeypatch.setattr(
        flan.ours.instructions, "_run", lambda f, pairs: sizes.append(len(pairs)) or real(f, pairs)
    )
    whole = flan.ours.generate(flan.features, prompts, options)
    assert flan.ours.generate(features, prompts, options) == whole
    scores = flan.ours.score(features, prompts, [CHOICES] * len(prompts))
    assert scores == flan.ours.score(flan.features, prompts, [CHOICES] * len(prompts))
    assert sizes == [8, 4, 4, 4, 4, 4, 4, 4, 8, 4]
