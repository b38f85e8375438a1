"""``--compile``, from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from blip2cli.model.vision.compiled import CACHE
from blip2cli.options import ModelOptions, RunOptions, SourceOptions
from blip2cli.pipeline.output import run_settings
from blip2cli.tasks import CaptionTask
from tests.command import Run, is_embedded
from tests.compiler import needs_compiler

SAMPLES = Path(__file__).parents[2] / "sample_images"


def texts(stdout: str) -> dict[str, str]:
    return {row["file_name"]: row["caption"] for row in map(json.loads, stdout.splitlines())}


@needs_compiler
@pytest.mark.skipif(not is_embedded("tiny"), reason="there is no tiny")
def test_captions_are_the_same_and_the_code_is_kept(blip2cli: Run, tmp_path: Path) -> None:
    plain = blip2cli("caption", SAMPLES, "--model", "tiny", "-q")
    assert len(texts(plain.stdout)) == 12
    kept: list[set[Path]] = []
    for more in (["--batch-size", "5"], []):
        done = blip2cli(
            *("caption", SAMPLES, "--model", "tiny", "--compile", "-v", *more),
            env={"XDG_CACHE_HOME": str(tmp_path / "cache"), CACHE: ""},
        )
        assert done.returncode == 0, done.stderr
        assert texts(done.stdout) == texts(plain.stdout)
        assert re.search(r"image side compiled in \d+\.\d s", done.stderr)
        folder = tmp_path / "cache" / "blip2cli" / "compiled"
        kept.append(set(folder.rglob("*.so")))
    assert len(kept[0]) > 3
    assert kept[0] == kept[1]  # the second start made no code


def test_no_compiler_is_a_mistake(blip2cli: Run, images: Path, checkpoint: Path) -> None:
    done = blip2cli(
        *("caption", images, "--model", checkpoint, "--device", "cpu", "--compile"),
        env={"CXX": "no-such-compiler"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("blip2cli: --compile on a CPU needs a C++ compiler, and no-such-")
    assert len(done.stderr.splitlines()) == 1


def test_texts_alone_are_not_compiled_for(blip2cli: Run) -> None:
    done = blip2cli("embed", "--text", "a cat", "--model", "tiny-itm", "--compile")
    assert done.returncode == 2
    assert "--compile is about images" in done.stderr


def test_rows_with_and_without_it_do_not_come_into_one_output() -> None:
    def settings(compiled: bool) -> object:
        model = ModelOptions("tiny", compile=compiled)
        return run_settings(CaptionTask(), RunOptions(SourceOptions(("x",)), model))["compile"]

    assert (settings(True), settings(False)) == (True, None)
