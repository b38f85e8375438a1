"""``--max-memory`` and ``--offload``, from the command line."""

from __future__ import annotations

from pathlib import Path

from tests.command import Run


def test_a_run_goes_on_with_layers_on_disk(
    blip2cli: Run, called: Run, images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    def caption(run: Run, out: Path, *more: object) -> None:
        done = run("caption", images, "-o", out, "--model", checkpoint, "--device", "cpu", *more)
        assert done.returncode == 0, done.stderr

    placed = ("--max-memory", "cpu=1MiB", "--offload", tmp_path / "layers")
    whole, both = tmp_path / "whole.jsonl", tmp_path / "both.jsonl"
    caption(called, whole)
    caption(called, both, "--limit", 2)
    caption(blip2cli, both, "--resume", *placed)
    assert both.read_bytes() == whole.read_bytes()


def test_several_devices_are_refused(called: Run, images: Path) -> None:
    done = called(
        "caption", images, "--model", "tiny", "--device", "cpu,cpu", "--device-map", "auto"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "blip2cli: --device-map places the layers of one model, and --device cpu,cpu asks for "
        "several models; name one device, and GPUs in --max-memory.\n"
    )
