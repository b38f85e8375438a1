"""The examination as a whole: order of checks, mistakes, failures."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from blip2cli.doctor.checks import CHECKS, QUICK, Check
from blip2cli.doctor.environment import Environment, environment
from blip2cli.doctor.examine import examine, run_checks
from blip2cli.doctor.report import ExaminedModel, Finding, Outcome, Report, fail, ok, skipped, warn
from blip2cli.errors import ModelError, OptionError, RunError, SourceError, option
from blip2cli.model.checkpoint.embedded import EMBEDDED
from blip2cli.model.families import FAMILIES, OPT
from blip2cli.options import DoctorOptions
from tests.doctor.broken_checkpoints import broken, settings
from tests.doctor.conftest import Sound


def test_without_a_model_the_installation_is_examined() -> None:
    events: list[Any] = []
    report = examine(DoctorOptions(), events.append)
    names = [finding.check for finding in report.findings]
    assert names == ["packages", "image-formats", "cache", *QUICK]
    assert {finding.status for finding in report.findings} <= {"ok", "warn"}
    assert report.exit_code == 0
    assert report.model is not None
    assert report.model.name == "tiny"
    # The listener gets every part as soon as it is known.
    assert isinstance(events[0], Environment)
    assert [part.check for part in events if isinstance(part, Finding)] == names
    assert events.index(report.model) < events.index(report.findings[3])


def test_a_model_passes_every_check_of_its_family() -> None:
    report = examine(DoctorOptions("tiny", dtype="bfloat16"))
    names = [c.name for c in CHECKS if OPT in c.families and not c.adapted]
    assert [finding.check for finding in report.findings] == ["packages", *names]
    assert {finding.status for finding in report.findings} == {"ok"}
    assert isinstance(report.model, ExaminedModel)
    assert report.model.dtype == "bfloat16"
    assert "bfloat16 (asked for)" in report.model.reason


def test_every_embedded_model_is_sound() -> None:
    for name in EMBEDDED:
        report = examine(DoctorOptions(name, device="cpu", dtype="float32"))
        states = {finding.check: finding.status for finding in report.findings}
        assert set(states.values()) <= {"ok", "skipped"}, (name, report.findings)


def test_every_family_has_each_check_once_and_after_those_it_needs() -> None:
    for family in FAMILIES:
        done: list[str] = []
        named = {check.name for check in CHECKS}
        for check in CHECKS:
            if family not in check.families:
                continue
            assert check.name not in done
            later = {c.name for c in CHECKS if family in c.families} - set(done)
            assert not set(check.needs) & later, check
            assert set(check.needs) <= named
            done.append(check.name)
        assert set(QUICK) - {"known-caption"} <= set(done)


def test_the_page_lists_every_check() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "doctor.md"
    listed = re.findall(r"^\| (`[^|]*`) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    names = [name for cell in listed for name in re.findall(r"`([a-z0-9-]+)`", cell)]
    assert sorted(names) == sorted(
        {check.name for check in CHECKS} | {"packages", "image-formats", "cache"}
    )


def test_a_report_is_one_json_object(opt: Sound, tmp_path: Path) -> None:
    directory = broken(opt.path, tmp_path, settings("config.json", image_token_index=None))
    report = examine(DoctorOptions(str(directory)))
    assert report.exit_code == 1
    whole = json.loads(json.dumps(report.as_dict()))
    assert list(whole) == ["ok", "environment", "model", "checks"]
    assert whole["ok"] is False
    assert whole["model"]["family"] == "opt"
    assert whole["model"]["path"] == str(directory)
    (failed,) = [check for check in whole["checks"] if check["status"] == "fail"]
    assert list(failed) == ["check", "status", "found", "remedy"]
    assert failed["check"] == "image-token"
    assert failed["remedy"] == "set image_token_index to 639 in config.json"
    assert whole["environment"]["memory"]["total"] > 0


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (DoctorOptions("tinny"), ModelError, "did you mean tiny"),
        (DoctorOptions("none/such/model"), ModelError, "neither an embedded model"),
        (DoctorOptions("."), ModelError, "has no config.json"),
        (DoctorOptions("tiny", dtype="float16", device="cpu"), OptionError, "float16"),
        (DoctorOptions("tiny", device="gpu"), OptionError, "is not a device"),
        (DoctorOptions(image="cat.png"), OptionError, "add model"),
        (DoctorOptions(revision="main"), OptionError, "add model"),
        (DoctorOptions("tiny", image="none.png"), SourceError, "image none.png: "),
    ],
)
def test_a_mistake_is_no_finding(
    options: DoctorOptions,
    kind: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message):
        examine(options)


def test_a_revision_of_a_directory_is_a_mistake(opt: Sound) -> None:
    with pytest.raises(ModelError, match="revision"):
        examine(DoctorOptions(str(opt.path), revision="main"))


def test_a_text_file_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(SourceError, match=r"a\.png: "):
        examine(DoctorOptions("tiny", image=str(tmp_path / "a.png")))


def test_a_package_that_cannot_be_imported_ends_it_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.import_module

    def importing(name: str) -> Any:
        if name == "torch":
            raise OSError("libtorch.so:\n cannot open shared object file")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", importing)
    with pytest.raises(RunError) as caught:
        examine(DoctorOptions())
    assert str(caught.value) == (
        "torch cannot be imported (OSError: libtorch.so: cannot open shared object file); install "
        "it again: pip install --force-reinstall torch."
    )


def run(*checks: Check) -> dict[str, Finding]:
    no_model: Any = None
    return {finding.check: finding for finding in run_checks(no_model, checks)}


def check(name: str, outcome: Outcome | Exception, *needs: str) -> Check:
    def function(subject: Any) -> Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return Check(name, function, needs)


def test_only_checks_that_need_a_failed_one_are_skipped() -> None:
    found = run(
        check("a", fail("broken", "remedy it.")),
        check("b", ok("fine"), "a"),
        check("c", ok("fine"), "b"),
        check("d", ok("fine")),
        check("e", skipped("does not apply")),
        check("f", warn("odd", "look again"), "d", "e"),
        check("g", ok("fine"), "f"),
    )
    assert [(f.status, f.found) for f in found.values()] == [
        ("fail", "broken"),
        ("skipped", "a comes first"),
        ("skipped", "b comes first"),
        ("ok", "fine"),
        ("skipped", "does not apply"),
        ("warn", "odd"),
        ("ok", "fine"),
    ]


@pytest.mark.parametrize(
    ("error", "found", "remedy"),
    [
        (ModelError(None, "x is cut", "fetch it again"), "x is cut", "fetch it again"),
        (
            ModelError(None, "x cannot be loaded (KeyError: 3)"),
            "x cannot be loaded (KeyError: 3)",
            "fetch the model again",
        ),
        (MemoryError(), "there is not enough memory", f"use {option('dtype')} bfloat16, a smaller"),
        (RuntimeError("shapes\n differ"), "RuntimeError: shapes differ", "if it stays, report it"),
        (KeyError(), "KeyError: no details", "take weights, config.json, tokenizer"),
    ],
)
def test_an_error_in_a_check_is_a_finding(error: Exception, found: str, remedy: str) -> None:
    (finding,) = run(check("a", error)).values()
    assert finding.status == "fail"
    assert finding.found == found
    assert remedy in (finding.remedy or "")


def test_the_exit_code_follows_the_failures() -> None:
    no_environment: Any = None

    def code(*outcomes: Outcome) -> int:
        made = tuple(Finding(o.status, o.found, o.remedy, "c") for o in outcomes)
        return Report(no_environment, None, made).exit_code

    assert code() == code(ok("a"), warn("b", "c"), skipped("d")) == 0
    assert code(ok("a"), fail("b", "c")) == 1


def test_a_report_spells_options_as_its_reader_does() -> None:
    finding = Finding("fail", "slow", f"add {option('num_beams')} 5", "c")
    whole = Report(environment(), None, (finding,)).as_dict(lambda name: f"<{name}>")
    assert whole["checks"][0]["remedy"] == "add <num_beams> 5"
