"""``blip2cli caption``: a caption for every image."""

from __future__ import annotations

from typing import Annotated

from blip2cli.cli.flags.declare import DECODING, option
from blip2cli.cli.flags.decoding import DecodeFlags
from blip2cli.cli.flags.options import ModelFlags, OutputFlags, ReportFlags, run_options
from blip2cli.cli.flags.presets import CaptionPreset
from blip2cli.cli.flags.resuming import ResumeFlags
from blip2cli.cli.flags.source import SourceFlags

EXAMPLES = "Example:  blip2cli caption photos/ -o captions.jsonl --prompt 'a photo of'"


def caption(
    source: SourceFlags,
    *,
    prompt: Annotated[
        str | None,
        option(
            "--prompt",
            metavar="TEXT",
            panel=DECODING,
            help="Text the caption goes on from; the row holds what comes after it.",
        ),
    ] = None,
    num_captions: Annotated[
        int,
        option(
            "--num-captions",
            metavar="N",
            min=1,
            panel=DECODING,
            help="Captions an image, best first; needs --num-beams or drawing.",
        ),
    ] = 1,
    preset: CaptionPreset = None,
    output: OutputFlags,
    resume: ResumeFlags,
    model: ModelFlags,
    decode: DecodeFlags,
    report: ReportFlags,
) -> int:
    """Write a caption for every image, with its mean token log-probability."""

    from blip2cli.cli.run_command import Built, perform

    def build() -> Built:
        from blip2cli.tasks import CaptionTask

        return CaptionTask(prompt, decode.options(num_captions)), run_options(
            source, model, output, resume
        )

    return perform(build, report)
