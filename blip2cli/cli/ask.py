"""``blip2cli ask``: answers to questions about every image."""

from __future__ import annotations

from typing import Annotated

from blip2cli.cli.decoding import DecodeFlags
from blip2cli.cli.options import (
    AskReportFlags,
    ModelFlags,
    OutputFlags,
    SourceFlags,
    lines,
    option,
    run_options,
)
from blip2cli.cli.presets import AskPreset
from blip2cli.cli.resuming import ResumeFlags
from blip2cli.errors import OptionError

EXAMPLES = (
    "Example:  blip2cli ask photos/ -q 'is there a dog?' -q 'what season is it?' -o out.parquet"
)
QUESTIONS = "Questions"


def ask(
    source: SourceFlags,
    *,
    question: Annotated[
        list[str] | None,
        lines(
            "--question",
            "-q",
            metavar="TEXT",
            panel=QUESTIONS,
            help="A question for every image; repeatable.",
        ),
    ] = None,
    questions: Annotated[
        str | None,
        option(
            "--questions",
            metavar="FILE",
            panel=QUESTIONS,
            help="A .txt with one question a line, or a .jsonl, .csv or .tsv table with "
            "file_name, question and, if wanted, question_id.",
            show_default=False,
        ),
    ] = None,
    template: Annotated[
        str,
        option(
            "--template",
            metavar="TEXT",
            panel=QUESTIONS,
            help="What the model reads: auto, or a text that holds {question}.",
        ),
    ] = "auto",
    preset: AskPreset = None,
    output: OutputFlags,
    resume: ResumeFlags,
    model: ModelFlags,
    decode: DecodeFlags,
    report: AskReportFlags,
) -> int:
    """Answer questions about every image: one row an image and question."""

    from blip2cli.cli.perform import Built, perform

    def build() -> Built:
        from blip2cli.tasks import AskTask
        from blip2cli.tasks.questions import from_file, from_texts

        if question and questions is not None:
            raise OptionError("-q and --questions exclude each other; put all questions in one.")
        asked = from_file(questions) if questions is not None else from_texts(question or [])
        return AskTask(asked, template, decode.options()), run_options(
            source, model, output, resume
        )

    return perform(build, report)
