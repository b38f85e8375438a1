"""Blocks of TOML and YAML on the pages: they are valid, and do what the page says.

What a workflow installs, fetches and uploads is left out; its other commands are run, by ``tiny``.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from blip2cli.cli.app import call
from tests.docs.blocks import PAGES, Block, blocks, surroundings
from tests.docs.material import lay_out
from tests.release.test_workflows import check_workflow

ALL = [block for page in PAGES for block in blocks(page)]
TOML = [block for block in ALL if block.language == "toml"]
YAML = {block.place: block.text for block in ALL if block.language == "yaml"}
PARSED: dict[str, dict[str, Any]] = {place: yaml.safe_load(text) for place, text in YAML.items()}
WORKFLOWS = [place for place, content in PARSED.items() if "jobs" in content]
CLUSTER_JOBS = [place for place, content in PARSED.items() if content.get("kind") == "Job"]


def test_every_block_of_settings_is_of_a_kind_that_is_checked() -> None:
    assert TOML
    assert WORKFLOWS
    assert CLUSTER_JOBS
    assert sorted(YAML) == sorted(WORKFLOWS + CLUSTER_JOBS)
    assert [b.place for b in ALL if b.language in ("yml", "ini", "cfg")] == []


@pytest.mark.parametrize("block", TOML, ids=lambda block: block.place)
def test_a_run_takes_its_options_from_the_file(
    block: Block,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("blip2cli.cli.run_command.run_command", lambda *job: 0)
    monkeypatch.chdir(tmp_path)
    Path("job.toml").write_text(block.text, encoding="utf-8")
    top = tomllib.loads(block.text)
    jobs = top.pop("jobs")
    for name, job in jobs.items():
        command = job.pop("command", "caption")
        assert call([command, "--config", "job.toml", "--job", name, "--dry-run"]) == 0
        printed = capsys.readouterr().out
        wanted = [(each, "job.toml") for each in top.items() if each[0] not in job]
        wanted += [(each, f"job.toml, job {name}") for each in job.items()]
        for (key, value), origin in wanted:
            shown = ", ".join(value) if isinstance(value, list) else value
            option = key.upper() if key == "source" else f"--{key.replace('_', '-')}"
            assert f"  {option}: {shown} ({origin})\n" in printed


@pytest.mark.external
@pytest.mark.parametrize("place", WORKFLOWS)
def test_a_workflow_is_valid(place: str, tmp_path: Path) -> None:
    path = tmp_path / "workflow.yml"
    path.write_text(YAML[place], encoding="utf-8")
    check_workflow(path)


def commands_of(workflow: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """The commands of a workflow with their variables: jobs in order, a matrix one by one."""
    for job in workflow["jobs"].values():
        matrix: dict[str, list[Any]] = job.get("strategy", {}).get("matrix", {})
        for values in itertools.product(*matrix.values()):
            for text in (step["run"] for step in job["steps"] if "run" in step):
                for name, value in zip(matrix, values, strict=True):
                    text = text.replace(f"${{{{ matrix.{name} }}}}", str(value))
                assert "${{" not in text
                if not text.startswith("pip install"):
                    yield text, workflow.get("env", {}) | job.get("env", {})


def run_workflow(place: str, folder: Path) -> list[int]:
    """The exit code of each command, run as a runner runs it, in ``folder`` with ``images``."""
    codes = []
    for text, variables in commands_of(PARSED[place]):
        env = surroundings(folder, **(variables | {"BLIP2CLI_MODEL": "tiny"}))
        done = subprocess.run(
            ["bash", "-e", "-c", text], cwd=folder, env=env, check=False, timeout=300
        )
        codes.append(done.returncode)
    assert codes
    return codes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lay_out(tmp_path)
    return (tmp_path / "photos").rename(tmp_path / "images").parent


@pytest.mark.external
@pytest.mark.parametrize("place", WORKFLOWS)
def test_the_commands_of_a_workflow_do_their_work(place: str, folder: Path) -> None:
    (folder / "images" / "broken.jpg").write_bytes(b"no picture")  # one failure ends no workflow
    assert set(run_workflow(place, folder)) == {0}


@pytest.mark.external
def test_a_workflow_fails_below_its_score(folder: Path) -> None:
    (place,) = (place for place in WORKFLOWS if "--fail-under" in YAML[place])
    questions = folder / "questions.csv"
    questions.write_text(questions.read_text().replace(",no\n", ",maybe\n"))
    assert run_workflow(place, folder) == [0, 1, 0]


@pytest.mark.external
@pytest.mark.parametrize("place", CLUSTER_JOBS)
def test_a_job_of_kubernetes_is_valid_and_its_pods_label_all_images(
    place: str, folder: Path
) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(PARSED[place], "1.30", strict=True)
    spec = PARSED[place]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    shell, flag, text = container["command"]
    (volume,) = container["volumeMounts"]
    (folder / "images").rename(folder / "photos")
    assert f"auto/{spec['completions']}" in text
    text = text.replace(f"auto/{spec['completions']}", "auto/2")  # two pods take less time
    for index in range(2):
        env = surroundings(folder, BLIP2CLI_MODEL="tiny", JOB_COMPLETION_INDEX=str(index))
        command = text.replace(f"{volume['mountPath']}/", f"{folder}/")
        subprocess.run([shell, flag, command], env=env, check=True, timeout=300)
    merge = "blip2cli verify 'out-*.parquet' && blip2cli convert 'out-*.parquet' all.jsonl"
    env = surroundings(folder)
    subprocess.run(["bash", "-e", "-c", merge], cwd=folder, env=env, check=True, timeout=300)
    rows = [json.loads(line) for line in (folder / "all.jsonl").read_text().splitlines()]
    assert len(rows) == 12
