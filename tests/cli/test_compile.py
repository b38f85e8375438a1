"""``--compile``, from the command line."""

from __future__ import annotations

from pathlib import Path

from blip2cli.options import ModelOptions, RunOptions, SourceOptions
from blip2cli.pipeline.settings import run_settings
from blip2cli.tasks.caption import CaptionTask
from tests.command import Run


def test_on_a_cpu_it_is_refused(called: Run, images: Path, checkpoint: Path) -> None:
    done = called("caption", images, "--model", checkpoint, "--device", "cpu", "--compile")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "blip2cli: --compile works on CUDA only, not on cpu; leave it out.\n"


def test_texts_alone_are_not_compiled_for(called: Run) -> None:
    done = called("embed", "--text", "a cat", "--model", "tiny-itm", "--compile")
    assert done.returncode == 2
    assert "--compile is about images" in done.stderr


def test_rows_with_and_without_it_do_not_come_into_one_output() -> None:
    def settings(compiled: bool) -> object:
        model = ModelOptions("tiny", compile=compiled)
        return run_settings(CaptionTask(), RunOptions(SourceOptions(("x",)), model))["compile"]

    assert (settings(True), settings(False)) == (True, None)
