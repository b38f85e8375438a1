"""``--max-memory`` and ``--offload``, from the command line."""

from __future__ import annotations

from pathlib import Path

from tests.command import Run


def test_a_run_goes_on_with_layers_on_disk(
    blip2cli: Run, images: Path, checkpoint: Path, tmp_path: Path
) -> None:
    def caption(out: Path, *more: object) -> None:
        done = blip2cli(
            "caption", images, "-o", out, "--model", checkpoint, "--device", "cpu", *more
        )
        assert done.returncode == 0, done.stderr

    placed = ("--max-memory", "cpu=1MiB", "--offload", tmp_path / "layers")
    whole, both = tmp_path / "whole.jsonl", tmp_path / "both.jsonl"
    caption(whole)
    caption(both, "--limit", 2)
    caption(both, "--resume", *placed)
    assert both.read_bytes() == whole.read_bytes()


def test_several_devices_are_refused(blip2cli: Run, images: Path) -> None:
    done = blip2cli(
        "caption", images, "--model", "tiny", "--device", "cpu,cpu", "--device-map", "auto"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "blip2cli: --device-map places the layers of one model, and --device cpu,cpu asks for "
        "several models; name one device, and GPUs in --max-memory.\n"
    )
