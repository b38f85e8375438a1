"""``blip2cli convert`` for checkpoints: what it says, what it leaves, and that the result runs."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from blip2cli.cli.app import call
from blip2cli.model.checkpoint.embedded import embedded_path
from blip2cli.storage.durable import temporary_name
from blip2cli.system.library_logging import silence_libraries
from tests.checkpoints import tiny_random_t5
from tests.command import COMMAND, environment
from tests.convert.checkpoints.helpers import like, state_of, tensors
from tests.convert.checkpoints.lavis import SMALL, random_state, save, saved_shapes
from tests.convert.helpers import read_rows

SAMPLES = Path(__file__).parents[3] / "sample_images"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = call(["convert", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert out == ""
    return code, err


def caption(model: str | Path, out: Path, *more: str) -> list[dict[str, object]]:
    arguments = ["caption", str(SAMPLES), "--model", str(model), "-o", str(out), "--quiet"]
    assert call([*arguments, *more]) == 0
    return read_rows(out)


def test_captions_are_the_same_after_a_journey(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = run(capsys, "tiny", tmp_path / "t.pth", "--check")
    assert code == 0
    assert "The language model was left out, as LAVIS does" in message
    assert "Check: all 209 weights are the same, bit for bit." in message
    code, message = run(capsys, tmp_path / "t.pth", tmp_path / "model", "--like", "tiny", "--check")
    assert code == 0
    assert "Check: all 216 weights are the same, bit for bit." in message
    assert message.splitlines()[-1].startswith("261 weights, 6.8 MB, into ")
    before = caption("tiny", tmp_path / "before.jsonl")
    after = caption(tmp_path / "model", tmp_path / "after.jsonl")
    assert len(before) == 12
    assert before == after


def test_other_precisions_and_shards_caption_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    flags = ("--dtype", "bfloat16", "--max-shard-size", "2MB", "--check")
    code, message = run(capsys, "tiny", out, *flags)
    assert code == 0
    assert "of 261 weights are the same, bit for bit; the largest difference of two" in message
    differ = float(message.partition("logits for a picture differ by ")[2].split()[0])
    assert 0 < differ < 0.5
    assert "the same one is the best." in message
    assert sorted(path.name for path in out.glob("model*")) == [
        *(f"model-0000{n}-of-00004.safetensors" for n in range(1, 5)),
        "model.safetensors.index.json",
    ]
    assert {weight.dtype for weight in tensors(out).values()} == {torch.bfloat16}
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    for name, weight in tensors(embedded_path("tiny")).items():
        assert torch.equal(tensors(out)[name], weight.bfloat16())
        break
    texts = [row["caption"] for row in caption("tiny", tmp_path / "one.jsonl")]
    assert texts == [row["caption"] for row in caption(out, tmp_path / "two.jsonl")]


def test_a_retrieval_model_is_compared_by_its_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = like("itm", tmp_path / "itm")
    capsys.readouterr()
    code, message = run(capsys, source, tmp_path / "half", "--dtype", "bfloat16", "--check")
    assert code == 0
    differ = float(message.partition("logits for a picture differ by ")[2].split()[0])
    assert 0 < differ < 0.2


class Touch:
    """A pickle that would run a command when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("how", ["torch", "pickle", "inside", "bin", "vision"])
def test_a_malicious_pickle_does_nothing_and_is_refused(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touched = tmp_path / "touched"
    evil, source = tmp_path / "evil.pth", tmp_path / "evil.pth"
    options: list[object] = ["--like", "tiny"]
    if how == "torch":
        torch.save({"model": Touch(touched)}, evil)
    elif how == "pickle":
        evil.write_bytes(pickle.dumps({"model": Touch(touched)}))
    elif how == "inside":
        save(random_state({"opt_proj.weight": (2, 2)}), evil, config=Touch(touched))
    elif how == "bin":
        source = like("opt", tmp_path / "model")
        (source / "model.safetensors").unlink()
        torch.save({"query_tokens": Touch(touched)}, source / "pytorch_model.bin")
        options = []
    else:
        torch.save({"cls_token": Touch(touched)}, evil)
        source = save(
            random_state(saved_shapes("opt", SMALL, 32, vision=False)), tmp_path / "l.pth"
        )
        options = ["--like", like("opt", tmp_path / "like"), "--vision-weights", evil]
    code, message = run(capsys, source, tmp_path / "out", *options)
    assert code == 2
    assert message.count("\n") == 1
    assert "or holds more than weights" in message
    assert not touched.exists()
    assert not (tmp_path / "out").exists()
    if how != "pickle":
        assert "posix.system" in message
        # The pickle was a live one: read carelessly, it does what it is made for.
        file = source / "pytorch_model.bin" if how == "bin" else evil
        torch.load(file, weights_only=False)
        assert touched.exists()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bit of everything."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "junk.pth").write_text("this is no archive")
    (folder / "empty.pth").write_bytes(b"")
    (folder / "rows.jsonl").write_text('{"file_name": "a"}\n')
    (folder / "photos").mkdir()
    (folder / "photos" / "cat.jpg").write_bytes(b"")
    save(random_state(saved_shapes("opt", SMALL, 32, vision=True)), folder / "t.pth")
    with silence_libraries():
        tiny_random_t5(folder / "t5")
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["junk.pth", "out"], "damaged"),
        (["empty.pth", "out"], "damaged"),
        (["tiny", "t.pth"], "exists already; add --overwrite"),
        (["tiny", "no/t.pth"], "does not exist; create it (mkdir -p) first"),
        (["t.pth", "u.pth"], "is a file of LAVIS already; name a directory"),
        (["tiny", "t.safetensors"], "would be weights without configuration and tokenizer"),
        (["tiny", "out", "--like", "tiny"], "--like is for a .pth file of LAVIS"),
        (["tiny", "o.pth", "--dtype", "float16"], "--dtype is for models of transformers"),
        (["tiny", "out", "--dtype", "float61"], "did you mean float16"),
        (["tiny", "out", "--max-shard-size", "huge"], "takes a size such as 2GB or 500MB"),
        (["t.pth", "out"], "the widths of no released BLIP-2"),
        (["t.pth", "out", "--like", "tiny", "--vision-weights", "x"], "There is no file 'x'"),
        (["tiny", "photos", "--overwrite"], "is no directory with a model"),
        (["tiny", "photos"], "exists already"),
        (["t5", "out", "--dtype", "float16"], "does not work with Flan-T5"),
        (["t5", "t5", "--overwrite"], "is read for the conversion"),
        (["t5", "t.pth", "out"], "one at a time, and 2 were given"),
        (["rows.jsonl", "t.pth", "out"], "checkpoints are converted one at a time"),
        (["rows.jsonl", "out.csv", "--check"], "--check is for checkpoints"),
        (["no.pth", "out"], "There is no file or folder 'no.pth'"),
        (["tiny", "out.parquet"], "'out.parquet' is a name for results"),
        (["tiny", "out", "--id-column", "x"], "--id-column is for results, and a checkpoint is"),
        (["tiny", "out", "--to", "jsonl"], "--to is for results"),
        (["t5/model.safetensors", "out"], "name the directory it lies in"),
        (["nobody/nothing", "out"], "the hub is switched off"),
        (["photos/none", "out.csv"], "There is no file or folder 'photos/none'"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    arguments: list[str],
    message: str,
    desk: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = {path: path.stat().st_mtime_ns for path in sorted(desk.rglob("*"))}
    capsys.readouterr()
    code, text = run(capsys, *arguments)
    assert (code, text.count("\n")) == (2, 1), text
    assert message in text
    assert {path: path.stat().st_mtime_ns for path in sorted(desk.rglob("*"))} == before


def test_a_variable_for_other_commands_does_not_hinder(
    desk: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BLIP2CLI_DTYPE", "auto")
    monkeypatch.setenv("BLIP2CLI_PREFIX", "a photo of ")
    assert run(capsys, desk / "rows.jsonl", tmp_path / "rows.csv", "--quiet") == (0, "")
    monkeypatch.setenv("BLIP2CLI_DTYPE", "bfloat16")
    assert run(capsys, desk / "rows.jsonl", tmp_path / "more.csv", "--quiet") == (0, "")
    assert run(capsys, "tiny", tmp_path / "tiny", "--quiet") == (0, "")
    assert tensors(tmp_path / "tiny")["query_tokens"].dtype == torch.bfloat16


def test_overwrite_replaces_a_model_wholly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert run(capsys, "tiny", out, "--max-shard-size", "1MB", "--quiet") == (0, "")
    assert run(capsys, "tiny", out, "--overwrite", "--quiet") == (0, "")
    copied = {n for n in os.listdir(embedded_path("tiny")) if n.endswith((".json", ".jinja"))}
    copied -= {"model.safetensors.index.json"}  # one file again
    assert set(os.listdir(out)) == copied | {"model.safetensors"}
    assert os.listdir(tmp_path) == ["model"]
    pth = tmp_path / "t.pth"
    pth.write_text("old")
    assert run(capsys, "tiny", pth, "--overwrite", "--quiet") == (0, "")
    assert "query_tokens" in state_of(pth)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f'ulimit -f 2000; "{COMMAND}" convert tiny out'],
        cwd=tmp_path,
        env=environment(tmp_path / "hf"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "Writing 'out' failed (File too large); nothing that was there was changed." in (
        done.stderr
    )
    assert os.listdir(tmp_path) == []


def test_a_killed_conversion_leaves_the_old_model_and_is_swept_up(tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert call(["convert", "tiny", str(out), "--quiet"]) == 0
    before = tensors(out)
    process = subprocess.Popen(
        [COMMAND, "convert", "tiny", out, "--overwrite", "--dtype", "float32"],
        env=environment(tmp_path / "hf"),
        stderr=subprocess.PIPE,
    )
    while not list(tmp_path.glob(".model.*.tmp/config.json")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    left = tensors(out)
    assert all(torch.equal(left[name], weight) for name, weight in before.items())
    # Killed between the two renames, the old model waits under another name.
    Path(temporary_name(str(out))).mkdir()
    out.rename(temporary_name(str(out), "old"))
    assert call(["convert", "tiny", str(out), "--quiet", "--dtype", "float32"]) == 0
    assert os.listdir(tmp_path) == ["model"]
    assert tensors(out)["query_tokens"].dtype == torch.float32
