"""Examine an installation or a model: read the environment, find the model, run the checks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from blip2cli.doctor.environment import Environment, environment
from blip2cli.doctor.report import ExaminedModel, Finding, Outcome, Report, fail, skipped
from blip2cli.errors import ModelError, OptionError, RunError, option
from blip2cli.options import DoctorOptions

if TYPE_CHECKING:
    from blip2cli.doctor.checks import Check
    from blip2cli.doctor.model_under_test import ModelUnderTest
    from blip2cli.doctor.pictures import Picture

# Gets each part of the report as soon as it is known: a large model takes a while.
Listener = Callable[[Environment | ExaminedModel | Finding], None]

EMBEDDED_MODEL = "tiny"


def examine(options: DoctorOptions, listener: Listener = lambda part: None) -> Report:
    """Examine the installation, or with ``options.model`` that model.

    Raises ModelError when there is no such model, OptionError when the options do not fit it or
    the machine, SourceError when the picture cannot be used, and RunError when torch or another
    package cannot even be imported; a model that is there but broken is a finding.
    """
    for field, what in (
        ("image", "is a picture for the model to caption"),
        ("revision", "is of a model from the hub"),
        ("adapter", "is merged into a model"),
    ):
        if options.model is None and getattr(options, field):
            raise OptionError(field, f"{option(field)} {what}", f"add {option('model')}")
    _import_packages()
    from blip2cli.doctor.pictures import read_picture

    picture = None if options.image is None else read_picture(options.image)
    subject = _find(options, picture)
    machine = environment(options.device, options.dtype)
    # No mistake of the user's is left: from here on there is a report.
    listener(machine)
    model: ExaminedModel | None = None
    findings: list[Finding] = []
    for part in _report_parts(options, machine, subject):
        listener(part)
        if isinstance(part, ExaminedModel):
            model = part
        else:
            findings.append(part)
    return Report(machine, model, tuple(findings))


def _import_packages() -> None:
    """Raise RunError when one of the packages cannot be imported: then nothing else works."""
    for name in ("numpy", "PIL", "pyarrow", "torch", "transformers"):
        try:
            importlib.import_module(name)
        except Exception as error:
            package = "pillow" if name == "PIL" else name
            raise RunError(
                None,
                f"{package} cannot be imported ({type(error).__name__}: {_one_line(error)})",
                f"install it again: pip install --force-reinstall {package}",
            ) from error


def _find(options: DoctorOptions, picture: Picture | None) -> ModelUnderTest | ModelError:
    """The model and its placement, or the error that keeps a model on this machine unread."""
    from blip2cli.doctor.model_under_test import ModelUnderTest
    from blip2cli.doctor.pictures import drawn_pictures
    from blip2cli.model.checkpoint.resolve import resolve_model
    from blip2cli.model.placement.dtype import place

    name = options.model or EMBEDDED_MODEL
    try:
        found = resolve_model(replace(options, model=name))
    except ModelError as error:
        if not _is_local(name, options.revision):
            raise
        return error
    placement = place(
        options.device, options.dtype, found.family, found.weight_bytes, options.quantize
    )
    return ModelUnderTest(name, found, placement, drawn_pictures(), picture)


def _report_parts(
    options: DoctorOptions, machine: Environment, subject: ModelUnderTest | ModelError
) -> Iterator[ExaminedModel | Finding]:
    from blip2cli.doctor import installation
    from blip2cli.doctor.checks import CHECKS, QUICK

    yield _finding("packages", installation.packages())
    if options.model is None:
        yield _finding("image-formats", installation.image_formats())
        yield _finding("cache", installation.cache(machine.cache))
    if isinstance(subject, ModelError):
        yield _finding("files", _failure(subject))
        return
    family, placement = subject.checkpoint.family, subject.placement
    yield ExaminedModel(
        name=subject.name,
        path=str(subject.path),
        family=family.name,
        device=str(placement.device),
        dtype=str(placement.dtype).removeprefix("torch."),
        reason=placement.reason,
    )
    checks = [check for check in CHECKS if options.model or check.name in QUICK]
    checks = [check for check in checks if family in check.families]
    adapted = bool(subject.checkpoint.adapters)
    yield from run_checks(subject, [check for check in checks if adapted or not check.adapted])


def run_checks(subject: ModelUnderTest, checks: Sequence[Check]) -> Iterator[Finding]:
    """Run the checks in order; one that needs a failed check is skipped."""
    blocked: set[str] = set()  # checks that failed, or were skipped because others did
    for check in checks:
        missing = [name for name in check.needs if name in blocked]
        outcome = skipped(f"{missing[0]} comes first") if missing else _run(check, subject)
        if missing or outcome.status == "fail":
            blocked.add(check.name)
        yield _finding(check.name, outcome)


def _run(check: Check, subject: ModelUnderTest) -> Outcome:
    """Run one check. Whatever a broken model raises is a finding."""
    from blip2cli.system.memory import is_exhaustion

    try:
        return check.run(subject)
    except ModelError as error:
        return _failure(error)
    except Exception as error:  # noqa: BLE001 - a broken model may fail in any way
        if is_exhaustion(error):
            return fail(
                "there is not enough memory",
                f"use {option('dtype')} bfloat16, a smaller model or a larger machine",
            )
        return fail(
            f"{type(error).__name__}: {_one_line(error) or 'no details'}",
            "take weights, config.json, tokenizer and processor from one model, and fetch it "
            "again; if it stays, report it",
        )


def _failure(error: ModelError) -> Outcome:
    return fail(error.problem.removesuffix("."), error.remedy or "fetch the model again")


def _finding(name: str, outcome: Outcome) -> Finding:
    return Finding(outcome.status, outcome.found, outcome.remedy, check=name)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _is_local(name: str, revision: str | None) -> bool:
    """Whether the model's configuration is on this machine: then it is broken, not unknown."""
    from blip2cli.model.checkpoint.embedded import EMBEDDED
    from blip2cli.model.checkpoint.resolve import HUB_ID

    if name in EMBEDDED:
        return True
    path = Path(name).expanduser()
    if path.is_dir():
        return revision is None and (path / "config.json").is_file()
    if HUB_ID.fullmatch(name) is None:
        return False
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)
