"""Workflows are valid, and the one that publishes can do no more than that."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")


def check_workflow(path: Path) -> None:
    """GitHub's schema of workflows holds for the one at ``path``."""
    words = ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", path]
    check(words)


def check(words: list[str | Path]) -> None:
    """A checker that is installed beside the tests finds nothing."""
    name, *rest = words
    done = subprocess.run(
        [Path(sys.executable).with_name(str(name)), *rest],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.external
def test_workflows_are_valid_and_allowed_no_more_than_they_need() -> None:
    for path in FOLDER.iterdir():
        check_workflow(path)
    check(["zizmor", "--offline", "--no-progress", "--color", "never", FOLDER])


@pytest.mark.external
def test_a_workflow_that_is_not_valid_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "publish.yml"
    path.write_text((FOLDER / "publish.yml").read_text().replace("steps:", "step:", 1))
    with pytest.raises(AssertionError, match="step"):
        check_workflow(path)


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    workflow = yaml.safe_load((FOLDER / "publish.yml").read_text())
    assert workflow["permissions"] == {}
    found: dict[str, Any] = workflow["jobs"]
    return found


def test_only_the_job_that_uploads_may_say_who_it_is(jobs: dict[str, Any]) -> None:
    rights = {name: job["permissions"] for name, job in jobs.items()}
    reading = {"contents": "read"}
    assert rights == {"build": reading, "try": reading, "publish": {"id-token": "write"}}
    assert not [step for step in jobs["publish"]["steps"] if "run" in step]
    assert "secrets." not in (FOLDER / "publish.yml").read_text()


def test_what_is_published_was_built_once_checked_and_tried(jobs: dict[str, Any]) -> None:
    runs = [step.get("run") for job in jobs.values() for step in job["steps"]]
    assert runs.count("make dist") == 1
    assert "twine check --strict" in (ROOT / "Makefile").read_text()
    assert set(jobs["publish"]["needs"]) == {"build", "try"}
    *_, upload = jobs["publish"]["steps"]
    assert upload["with"]["attestations"] is True


def test_actions_are_named_by_commit(jobs: dict[str, Any]) -> None:
    used = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert used
    assert [action for action in used if not PINNED.fullmatch(action)] == []


def test_the_tag_is_compared_with_the_version(jobs: dict[str, Any], tmp_path: Path) -> None:
    from blip2cli import __version__

    (step,) = (s for s in jobs["build"]["steps"] if s.get("name") == "The tag is the version")
    for tag, code in ((f"v{__version__}", 0), ("v9.9.9", 1)):
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]], cwd=ROOT, env={"TAG": tag}, check=False, timeout=30
        )
        assert done.returncode == code, tag
