"""Values that a shell offers, asked for as a shell does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main

from blip2cli.cli.app import COMMANDS, application, call
from blip2cli.cli.flags.offers import KINDS
from blip2cli.convert.format_table import FORMATS, READABLE
from blip2cli.model.checkpoint.embedded import EMBEDDED
from blip2cli.options import GROUPS, declarations
from tests.command import COMMAND, environment

Complete = Callable[..., list[str]]
NAMES = [*EMBEDDED]


@pytest.fixture
def complete(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Complete:
    """What bash is told of a line whose last word is being typed, in a folder of its own."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / ".cache"))
    monkeypatch.setenv("_BLIP2CLI_COMPLETE", "complete_bash")

    def run(*words: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", "\n".join(("blip2cli", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        assert call([]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        return out.splitlines() if out != "\n" else []

    return run


def put_model(folder: Path, model_type: str | None, name: str = "config.json") -> None:
    folder.mkdir(parents=True)
    (folder / name).write_text(json.dumps({"model_type": model_type}))


def test_models_are_those_that_are_run(complete: Complete, tmp_path: Path) -> None:
    assert complete("caption", "--model", "") == NAMES
    hub = tmp_path / ".cache"
    put_model(hub / "models--Salesforce--blip2-opt-2.7b" / "snapshots" / "1f", "blip-2")
    put_model(hub / "models--me--lora" / "snapshots" / "2f", None, "adapter_config.json")
    put_model(hub / "models--google--flan-t5-xl" / "snapshots" / "3f", "t5")
    (hub / "models--half--downloaded" / "snapshots" / "4f").mkdir(parents=True)
    put_model(tmp_path / "mine", "instructblip")
    put_model(tmp_path / "other", "bert")
    cached = ["Salesforce/blip2-opt-2.7b", "me/lora"]
    assert complete("caption", "--model", "") == [*NAMES, "mine", *cached]
    assert complete("doctor", "--model", "Sales") == cached[:1]
    assert complete("caption", "--model", "Salesforce/bl") == cached[:1]  # no folder
    assert complete("caption", "photos", "-o", "x.jsonl", "--rank-with", "tiny-it") == ["tiny-itm"]
    every = [cached[0], "google/flan-t5-xl", "half/downloaded", "me/lora"]
    assert complete("convert", "a.pth", "b", "--language-model", "") == every
    assert complete("caption", "--adapter", "me") == ["me/lora"]


def test_directories_are_completed_by_the_shell_unless_a_model_is_among_them(
    complete: Complete, tmp_path: Path
) -> None:
    put_model(tmp_path / "models" / "mine", "blip-2")
    (tmp_path / "models" / "old").mkdir()
    (tmp_path / "moved").mkdir()
    assert complete("caption", "--model", "./mo") == []
    assert complete("caption", "--model", "./models/") == ["./models/mine", "./models/old/"]
    assert complete("caption", "--model", f"{tmp_path}/models/m") == [f"{tmp_path}/models/mine"]


FIXED = {
    ("caption", "--device"): ["auto", "cpu", "cuda", "cuda:all", "mps"],
    ("convert", "--from"): [*READABLE],
    ("convert", "--to"): [*FORMATS],
    ("caption", "--preset"): ["paper-caption"],
    ("ask", "--preset"): ["paper-vqa"],
    ("caption", "--shard"): ["auto"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_a_set_offer_it(command: str, complete: Complete) -> None:
    checked = 0
    for parameter in typer.main.get_command(application([command])).commands[command].params:  # type: ignore[attr-defined]
        flag = max(parameter.opts, key=len)
        known = parameter.type_descriptor.choices or FIXED.get((command, flag))
        if known:
            words = (flag, "") if flag.startswith("-") else ("",)
            assert complete(command, *words) == [*known], flag
            checked += 1
    assert checked or command not in ("caption", "ask", "embed", "convert", "schema", "doctor")


def test_what_a_declaration_offers_is_there() -> None:
    declared = {name: each for group in GROUPS for name, each in declarations(group)}
    for name, each in declared.items():
        assert isinstance(each.offers, tuple) or each.offers in KINDS, name
        assert set(each.columns_of) <= declared.keys(), name


def test_metrics_are_offered_one_after_the_other(complete: Complete) -> None:
    words = ("eval", "rows.jsonl", "--metric", "cider", "--metric", "v")
    assert complete(*words) == ["vqa", "vqa_2017"]


@pytest.fixture
def tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("file_name,alt,price in €\nx.png,a,1\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"file_name": "x", "brand": 1}\n')
    pq.write_table(pa.table({"photo": ["x"], "sku": [1]}), tmp_path / "c.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    (tmp_path / "damaged.jsonl").write_bytes(b"\xff\x00{")
    (tmp_path / "job.toml").write_text(
        'source = ["c.parquet"]\n[jobs.nightly]\ncommand = "caption"\n[jobs.next]\n'
        '[jobs.asked]\ncommand = "ask"\n'
    )


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("caption", "a.csv", "--image-column", ""), ["file_name", "alt", "price\\ in\\ €"]),
        (("caption", "a.csv", "--keep", "pr"), ["price\\ in\\ €"]),
        (("caption", "a.csv", "--keep", "'pr"), ["price in €"]),
        (("caption", "b.jsonl", "c.parquet", "--keep", "b"), ["brand"]),
        (("ask", "--limit", "3", "c.parquet", "-q", "a?", "--keep", "s"), ["sku"]),
        (("caption", "damaged.parquet", "damaged.jsonl", "b.jsonl", "--keep", "b"), ["brand"]),
        (("caption", "none.csv", "--keep", ""), []),
        (("caption", "--keep", ""), []),
        (("caption", "a.csv", "--prompt", "'a photo of {a"), ["a photo of {alt}"]),
        (("caption", "a.csv", "--prompt", "{al"), ["{alt}"]),
        (("caption", "a.csv", "--prompt", "'a {alt} and"), []),
        (("ask", "b.jsonl", "-q", "'is the {alt} of {b"), ["is the {alt} of {brand}"]),
        (("ask", "x", "--questions", "a.csv", "--choices-column", "a"), ["alt"]),
        (("eval", "b.jsonl", "--against", "a.csv", "--by", "a"), ["alt"]),
        (("eval", "b.jsonl", "--against", "a.csv", "--reference-column", "b"), []),
        (("calibrate", "b.jsonl", "--against", "a.csv", "--reference-column", "al"), ["alt"]),
        (("convert", "b.jsonl", "--text-column", "b"), ["brand"]),
        (("report", "b.jsonl", "--source", "a.csv", "--image-column", "al"), ["alt"]),
        (("caption", "--config", "job.toml", "--image-column", "p"), ["photo"]),
        (("caption", "--config", "job.toml", "--job", ""), ["nightly", "next"]),
        (("ask", "--config", "job.toml", "--job", ""), ["next", "asked"]),
        (("ask", "--config", "none.toml", "--job", ""), []),
        (("ask", "--job", ""), []),
        (("caption", "a.csv", "--prom"), ["--prompt"]),
        (("cap",), ["caption"]),
        (("caption", "--help-"), ["--help-all"]),
        (("caption", "ph"), []),  # the shell completes files
    ],
)
def test_names_of_what_stands_before_are_offered(
    words: tuple[str, ...], offered: list[str], complete: Complete
) -> None:
    assert complete(*words) == offered


@pytest.mark.usefixtures("tables")
def test_bash_completes_quickly_and_in_silence(tmp_path: Path) -> None:
    """The script for bash in bash itself; nothing large is imported on the way."""
    trace = tmp_path / "trace"
    (tmp_path / "blip2cli").write_text(
        f"#!{sys.executable} -u\n"
        "import atexit, os, sys\n"
        "end = os._exit\n"
        "def note(code):\n"
        f"    open({str(trace)!r}, 'w').write(' '.join(sys.modules))\n"
        "    end(code)\n"
        "os._exit = note\n"
        "from blip2cli.cli.app import main\n"
        "main()\n"
    )
    (tmp_path / "blip2cli").chmod(0o755)
    script = subprocess.run(
        [str(COMMAND)],
        env=environment(tmp_path, _BLIP2CLI_COMPLETE="source_bash"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    done = subprocess.run(
        [
            "bash", "--norc", "-c",
            (f"{script}\nCOMP_WORDS=(blip2cli caption a.csv --model t --keep al) COMP_CWORD=6\n"
            '_blip2cli_completion ./blip2cli\nprintf "%s\\n" "${COMPREPLY[@]}"'),
        ],
        cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("alt\n", "")
    heavy = {
        "torch",
        "transformers",
        "pyarrow",
        "numpy",
        "PIL",
        "pydantic",
        "rich.console",
        "fsspec",
    }
    assert heavy & set(trace.read_text().split()) == set()
