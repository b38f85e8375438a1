"""The examination: look around, find the model, make the checks one after the other."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from blip2cli.doctor.environment import Environment, environment
from blip2cli.doctor.options import DoctorOptions
from blip2cli.doctor.report import Examined, Finding, Outcome, Report, fail, skipped
from blip2cli.errors import ImageError, ModelError, OptionError, RunError, SourceError

if TYPE_CHECKING:
    from blip2cli.doctor.checks import Check
    from blip2cli.doctor.model_under_test import Patient, Picture

# Told of each part as soon as it is known: a large model takes a while.
Listener = Callable[[Environment | Examined | Finding], None]

EMBEDDED_MODEL = "tiny"
# Drawn pictures to try models on: what is in them, and how many, differs.
_DRAWN = ("cats.png", "elephant.jpg", "night.png")


def examine(options: DoctorOptions, listener: Listener = lambda part: None) -> Report:
    """Examine the installation, or with ``options.model`` that model.

    Raises ModelError when there is no such model, OptionError when the options do not fit it or
    the machine, SourceError when the picture cannot be used, and RunError when torch or another
    package cannot even be imported; a model that is there but broken is a finding.
    """
    if options.model is None and options.image is not None:
        raise OptionError("--image is a picture for the model to caption; add --model.")
    if options.model is None and options.revision is not None:
        raise OptionError("--revision is of a model from the hub; add --model.")
    _import()
    image = None if options.image is None else _picture(options.image)
    patient, broken = _find(options, image)
    around = environment(options.device, options.dtype)
    # Nothing the user got wrong is left: from here on there is a report.
    listener(around)
    findings: list[Finding] = []
    for finding in _findings(options, around, patient, broken, listener):
        findings.append(finding)
        listener(finding)
    examined = None if patient is None else _examined(patient)
    return Report(around, examined, tuple(findings))


def _import() -> None:
    """Raise RunError when one of the packages cannot be imported: then nothing else works."""
    for name in ("numpy", "PIL", "pyarrow", "torch", "transformers"):
        try:
            importlib.import_module(name)
        except Exception as error:
            package = "pillow" if name == "PIL" else name
            said = " ".join(str(error).split())
            raise RunError(
                f"{package} cannot be imported ({type(error).__name__}: {said}); install it "
                f"again: pip install --force-reinstall {package}."
            ) from error


def _find(
    options: DoctorOptions, image: Picture | None
) -> tuple[Patient | None, ModelError | None]:
    """The model on its device, or what keeps a model that is there from being looked at."""
    from blip2cli.doctor.model_under_test import Patient
    from blip2cli.model.checkpoint.resolve import resolve
    from blip2cli.model.placement.dtype import place

    name = options.model or EMBEDDED_MODEL
    try:
        found = resolve(name, options.revision)
    except ModelError as error:
        if not _is_here(name, options.revision):
            raise
        return None, error
    placement = place(
        options.device, options.dtype, found.family, found.weight_bytes, options.quantize
    )
    return Patient(name, found, placement, _drawn(), image), None


def _findings(
    options: DoctorOptions,
    around: Environment,
    patient: Patient | None,
    broken: ModelError | None,
    listener: Listener,
) -> Iterator[Finding]:
    from blip2cli.doctor.checks import CHECKS, QUICK
    from blip2cli.doctor.installation import installation, packages

    yield _finding("packages", packages())
    if options.model is None:
        for name, outcome in installation(around):
            yield _finding(name, outcome)
    if broken is not None:
        yield _finding("files", _told(broken))
    if patient is None:
        return
    listener(_examined(patient))
    family = patient.checkpoint.family
    yield from run_checks(
        patient,
        [
            check
            for check in CHECKS
            if family in check.families and (options.model or check.name in QUICK)
        ],
    )


def _examined(patient: Patient) -> Examined:
    placement = patient.placement
    return Examined(
        name=patient.name,
        path=str(patient.path),
        family=patient.checkpoint.family,
        device=str(placement.device),
        dtype=str(placement.dtype).removeprefix("torch."),
        reason=placement.reason,
    )


def run_checks(patient: Patient, checks: Sequence[Check]) -> Iterator[Finding]:
    """Make the checks in order; one that needs what has failed is skipped."""
    without: set[str] = set()  # checks that failed, or were skipped because others did
    for check in checks:
        missing = [name for name in check.needs if name in without]
        outcome = skipped(f"{missing[0]} comes first") if missing else _look(check, patient)
        if missing or outcome.status == "fail":
            without.add(check.name)
        yield _finding(check.name, outcome)


def _look(check: Check, patient: Patient) -> Outcome:
    """Make one check. Whatever goes wrong with a broken model is a finding."""
    from blip2cli.pipeline.out_of_memory import is_exhaustion

    try:
        return check.look(patient)
    except ModelError as error:
        return _told(error)
    except Exception as error:  # noqa: BLE001 - a broken model may fail in any way
        if is_exhaustion(error):
            return fail(
                "there is not enough memory",
                "use --dtype bfloat16, a smaller model or a larger machine.",
            )
        said = " ".join(str(error).split()) or "no details"
        return fail(
            f"{type(error).__name__}: {said}",
            "take weights, config.json, tokenizer and processor from one model, and fetch it "
            "again; if it stays, report it.",
        )


def _told(error: ModelError) -> Outcome:
    """Sentences of ModelError say what is wrong and then, after a mark, the mend."""
    said = str(error)
    for mark in ("; ", ": "):
        found, _, mend = said.rpartition(mark)
        if found and found.count("(") == found.count(")"):
            return fail(found, mend)
    return fail(said.removesuffix("."), "fetch the model again.")


def _finding(name: str, outcome: Outcome) -> Finding:
    return Finding(outcome.status, outcome.found, outcome.mend, check=name)


def _is_here(name: str, revision: str | None) -> bool:
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


@cache
def _drawn() -> tuple[Picture, ...]:
    from blip2cli.doctor.model_under_test import Picture
    from blip2cli.tiny.samples import SAMPLES, draw_sample

    samples = {sample.file_name: sample for sample in SAMPLES}
    found = []
    for name in _DRAWN:
        image, scene = draw_sample(samples[name])
        found.append(Picture(name, image, scene.caption))
    return tuple(found)


def _picture(file: str) -> Picture:
    from blip2cli.doctor.model_under_test import Picture
    from blip2cli.images.decode import decode
    from blip2cli.sources.base import ImageRef

    try:
        return Picture(
            Path(file).name, decode(ImageRef(file, str(Path(file).absolute())).read()).image
        )
    except ImageError as error:
        raise SourceError(f"--image {file}: {error}") from error
