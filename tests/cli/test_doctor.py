"""``blip2cli doctor`` from a shell's point of view."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from blip2cli.cli.app import call
from blip2cli.cli.terminal.doctor_report import DoctorPrinter
from blip2cli.doctor.report import Finding
from blip2cli.model.checkpoint.embedded import embedded_path
from tests.cli.helpers import error_sentence
from tests.command import COMMAND, Run, environment

MARKS = ("ok ", "warn ", "FAIL ", "skipped ")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """``tiny`` with two faults."""
    copy = tmp_path / "broken"
    shutil.copytree(embedded_path("tiny"), copy)
    for name, key, value in (
        ("tokenizer_config.json", "padding_side", "right"),
        ("config.json", "image_token_index", None),
    ):
        whole = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps(whole | {key: value}))
    return copy


def test_a_sound_model_passes_every_check(blip2cli: Run, tmp_path: Path) -> None:
    env = {"HF_TOKEN": "hf_secret", "HF_ENDPOINT": "http://me:hf_secret@hub.example"}
    done = blip2cli("doctor", "--model", "tiny", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    checks = [line for line in lines if line.startswith(MARKS)]
    assert len(checks) == 21
    assert not [line for line in checks if not line.startswith(("ok ", "skipped precision"))]
    assert f"model            tiny (opt), {embedded_path('tiny')}" in lines
    assert f"cache            {tmp_path / 'hf' / 'hub'}, " in done.stdout
    assert "http://hub.example, offline (HF_HUB_OFFLINE), with a token" in done.stdout
    assert "hf_secret" not in done.stdout
    assert "\x1b" not in done.stdout


def test_a_broken_model_is_told_with_the_remedy_and_the_code(blip2cli: Run, broken: Path) -> None:
    done = blip2cli("doctor", "--model", broken, env={"FORCE_COLOR": "1"})
    assert done.returncode == 1
    assert done.stderr == (
        "\x1b[31mblip2cli:\x1b[0m image-token failed (1 more failed): set image_token_index to "
        "639 in config.json.\n"
    )
    lines = done.stdout.splitlines()
    mark = "\x1b[31mFAIL    \x1b[0m"
    failed = [number for number, line in enumerate(lines) if line.startswith(mark)]
    names = [lines[number].removeprefix(mark).split()[0] for number in failed]
    assert names == ["image-token", "padding-side"]
    assert lines[failed[1] + 1].strip() == "→ set padding_side to left in tokenizer_config.json."


def test_json_is_one_object_and_nothing_else(
    broken: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(["doctor", "--model", str(broken), "--json"]) == 1
    out, err = capfd.readouterr()
    whole = json.loads(out)
    assert whole["ok"] is False
    states = {check["check"]: check["status"] for check in whole["checks"]}
    assert [name for name, state in states.items() if state == "fail"] == [
        "image-token",
        "padding-side",
    ]
    assert states["transformers"] == "skipped"
    assert err.startswith("blip2cli: image-token failed (1 more failed): ")


def test_without_a_model_the_installation_is_looked_at(capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["doctor"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    for name in ("packages", "image formats", "cpu", "cores", "memory", "large models", "hub"):
        assert f"\n{name} " in out
    for name in ("image-formats", "cache", "files", "load", "known-caption"):
        assert f" {name} " in out
    assert "'two cats and a pizza on a blue background'" in out


def test_the_model_may_come_from_the_environment(
    broken: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLIP2CLI_MODEL", str(broken))
    assert call(["doctor"]) == 1
    assert f"model            {broken} (opt), {broken}\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "tinny"], "did you mean tiny?"),
        (["--model", "none/model"], "none/model"),
        (["--dtype", "float16", "--device", "cpu"], "--dtype float16 is slower"),
        (["--dtype", "float61"], "did you mean float16"),
        (["--image", "a.png"], "add --model"),
        (["--model", "tiny", "--image", "a.png"], "--image a.png: "),
        (["--modle", "tiny"], "did you mean --model"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    monkeypatch.chdir(tmp_path)
    code = call(["doctor", *arguments])
    out, err = capfd.readouterr()
    assert said in error_sentence(subprocess.CompletedProcess(arguments, code, out, err))


def test_a_hub_model_that_is_only_partly_there_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--owner--name"
    snapshot = repo / "snapshots" / ("a" * 40)
    shutil.copytree(embedded_path("tiny"), snapshot)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    arguments = ["doctor", "--model", "owner/name", "--json"]
    assert call(arguments) == 0
    assert json.loads(capfd.readouterr().out)["model"]["path"] == str(snapshot)
    (snapshot / "vision.safetensors").unlink()
    assert call(arguments) == 1
    _, finding = json.loads(capfd.readouterr().out)["checks"]
    assert finding["check"] == "files"
    assert "owner/name is only partly in the cache" in finding["found"]
    assert "go online" in f"{finding['found']}; {finding['remedy']}"
    # Another revision is not there at all: that is the user's mistake.
    assert call([*arguments, "--revision", "v2"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "owner/name is not in the cache" in err


def test_the_published_caption_is_held_against_the_model(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory, picture = tmp_path / "blip2-opt-2.7b", tmp_path / "merlion.jpg"
    shutil.copytree(embedded_path("tiny"), directory)
    shutil.copy(Path(__file__).parents[2] / "sample_images" / "elephant.jpg", picture)
    assert call(["doctor", "--model", str(directory), "--image", str(picture)]) == 1
    out, err = capfd.readouterr()
    assert "expected 'the merlion fountain in singapore', as published, and got 'an eleph" in out
    assert err.startswith("blip2cli: known-caption failed: ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_lines_are_broken_under_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "64")
    monkeypatch.setenv("NO_COLOR", "1")
    finding = Finding("fail", "word " * 20 + "\x1b[31mred", "fix it, " * 9 + "now", "image-token")
    shown, piped = Terminal(), io.StringIO()
    DoctorPrinter(shown)(finding)
    DoctorPrinter(piped)(finding)
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 64
    assert lines[1].startswith("FAIL    image-token      word word")
    assert all(line.startswith(" " * 25) for line in lines[2:])
    assert [line for line in lines if line.strip().startswith("→ fix it,")]
    assert "\\x1b[31mred" in shown.getvalue().replace("\n" + " " * 25, " ")
    assert len(piped.getvalue().splitlines()) == 3


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"set -o pipefail; {COMMAND} doctor | true"
    env = environment(tmp_path / "hf", PATH=os.environ["PATH"])
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=300, env=env
    )
    assert (done.returncode, done.stdout, done.stderr) == (141, "", "")
